"""Opcodes that try out the queue, the locks and allocators: OP_TEST_*."""
