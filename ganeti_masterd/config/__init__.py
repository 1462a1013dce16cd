"""The cluster's configuration: its objects, its file, and how it is changed."""
