"""The live page: its files in ``page/``, and the two documents that it asks for.

What happens comes to the page by ``/events``. What is large and rarely changes, nodes and
instances, it asks for itself, and gets only what changed since it last did (``inventory``).
"""
