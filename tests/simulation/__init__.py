"""Tests of simulated nodes, also against recorded and real node daemons."""
