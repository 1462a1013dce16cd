"""Tests of the table of node calls, the results, and the scripted nodes."""
