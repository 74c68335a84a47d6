"""Contact sheets, and the map as pictures."""
