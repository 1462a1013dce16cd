"""The configuration of the cluster: values, their file, and how they change."""
