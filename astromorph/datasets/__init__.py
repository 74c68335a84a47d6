"""Images for PyTorch: datasets, batches, and FITS files as a dataset."""
