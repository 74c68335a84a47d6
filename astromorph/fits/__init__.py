"""FITS files: headers, world coordinates, and the pixels of the image."""
