"""The step `analyse` and the command `similar`."""
