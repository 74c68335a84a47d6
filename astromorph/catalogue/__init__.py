"""The steps `validate` and `split`: what each file contains and its use."""
