"""Jobs: their states, their files, the order in which they run, who waits for them."""
