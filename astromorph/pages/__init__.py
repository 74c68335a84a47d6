"""What all HTML pages share: templates, thumbnails and colours."""
