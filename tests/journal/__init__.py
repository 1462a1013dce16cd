"""Tests of the journal: commits, files that follow, recovery, crashes."""
