"""The allocator that is there without any script: pure, and the same for the same document.

It takes the document that scripts take and answers as they do, so that it can
stand in for one anywhere. What it weighs, in this order:

1. Hard limits: a node must not be offline or drained and must be able to run
   instances, have the memory and the disk, keep the group's ratios of
   virtual processors and of spindles, and the group's policy must allow the
   instance. A group must be connected to the networks of its NICs.
2. N+1: a node must be able to start the instances of any one other node
   of which it is the secondary, as far as it can when it is asked.
3. Groups: ``preferred`` ones before those of ``last_resort``; ``unallocable``
   ones only if asked for by name. Both nodes of an instance are in one group.
4. The score of a node (:func:`~ganeti_masterd.allocation.builtin.room.score`), and on
   equal scores the natural order of names.

It doesn't weigh exclusion tags, processor load or groups of disks. Who wants
that installs hail.
"""

from ganeti_masterd.allocation.builtin.answering import NAME, answer

__all__ = ["NAME", "answer"]
