"""The file list: its entries, its shards and repeated images."""
