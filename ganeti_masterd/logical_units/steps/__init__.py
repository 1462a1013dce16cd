"""Steps that opcodes of several kinds share; none of these modules runs an opcode itself."""
