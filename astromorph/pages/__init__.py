"""Shared parts of HTML pages: templates, thumbnails and colours."""
