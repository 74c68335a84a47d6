"""The steps `infer` and `evaluate`: embeddings, and how good they are."""
