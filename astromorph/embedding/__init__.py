"""The steps `infer` and `evaluate`: embeddings and their quality."""
