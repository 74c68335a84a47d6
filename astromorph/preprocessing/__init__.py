"""From the image of a FITS file to a tensor, and the step `preprocess`."""
