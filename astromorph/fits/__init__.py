"""FITS files: bytes, headers, world coordinates, and the image that is taken."""
