"""The simulated sky: images of known kinds, for samples, tests and training."""
