"""The interactive map, one HTML page that works offline."""
