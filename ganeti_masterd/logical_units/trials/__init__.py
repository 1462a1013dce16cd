"""Opcodes that test the queue, the locks and allocators: OP_TEST_*."""
