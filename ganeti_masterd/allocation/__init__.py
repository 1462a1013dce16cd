"""Finding nodes for instances: requests to an allocator, and its answers.

``requests`` has the questions, ``document`` describes the cluster to the allocator,
``results`` checks what it answers, ``scripts`` runs an installed allocator on the
master, and ``builtin`` is the allocator that is used if none is installed.
"""
