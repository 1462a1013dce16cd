"""One class for each opcode: what it locks, checks and does."""
