"""What other nodes hold of the queue and the configuration, and how far they are."""
