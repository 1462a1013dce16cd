"""The one door to the nodes: calls of the node daemon, whoever answers them."""
