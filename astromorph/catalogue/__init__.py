"""The steps `validate` and `split`: the contents and the subset of each file."""
