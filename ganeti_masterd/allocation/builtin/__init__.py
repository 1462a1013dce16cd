"""The allocator that needs no script. Pure: the same document always has the same answer.

It takes the document that scripts take and answers in the same form, so that it can
replace one anywhere. What it considers, in this order:

1. Hard limits: a node must not be offline or drained and must be able to run
   instances, have the memory and the disk, keep the group's ratios of
   virtual processors and of spindles, and the group's policy must allow the
   instance. A group must be connected to the networks of its NICs.
2. N+1: if any one other node fails, a node must have the memory to start all instances of
   that node for which it is the secondary, also after the placement.
3. Groups: ``preferred`` ones before those of ``last_resort``; ``unallocable``
   ones only if asked for by name. Both nodes of an instance are in one group.
4. The score of a node (:func:`~ganeti_masterd.allocation.builtin.room.score`), and on
   equal scores the natural order of names.

It doesn't consider exclusion tags, processor load or groups of disks. If you need
these, install hail.
"""

from ganeti_masterd.allocation.builtin.answering import NAME, answer, place_each

__all__ = ["NAME", "answer", "place_each"]
