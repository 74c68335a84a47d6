"""Contact sheets, and pictures of the map."""
