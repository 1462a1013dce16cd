"""LUXI methods: what each takes, and the one function that answers it."""
