"""Making a master candidate the master: what ``gnt-luxi master-failover`` does."""
