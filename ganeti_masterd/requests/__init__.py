"""LUXI methods: the arguments of each, and the one function that answers it."""
