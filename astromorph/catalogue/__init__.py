"""The steps `validate` and `split`: what each file is, and what it is used for."""
