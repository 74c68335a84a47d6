"""Preparation of FITS images as tensors, and the step `preprocess`."""
