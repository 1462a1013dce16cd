"""Finding nodes for instances: what an allocator is told, what it answers, and one of our own.

``requests`` are the questions, ``document`` is all that an allocator is told
with one, ``answers`` reads what it says, ``scripts`` is how an installed one is
run on the master, ``builtin`` decides where none is.
"""
