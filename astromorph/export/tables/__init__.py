"""The table of facts, analysis and embeddings as CSV, Parquet, FITS and VOTable."""
