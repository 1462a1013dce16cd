"""Tests of LUXI: framing, messages, the server and the clients."""
