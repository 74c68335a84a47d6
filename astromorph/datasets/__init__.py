"""Images as PyTorch wants them: datasets, batches, and FITS files as a dataset."""
