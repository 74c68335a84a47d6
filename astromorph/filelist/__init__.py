"""The file list: which images there are, in which shards, and which files repeat."""
