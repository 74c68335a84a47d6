"""What HTML pages share: templates, thumbnails and colours."""
