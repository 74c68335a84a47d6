"""Every setting: its name, default, range and reason, and which step depends on it."""
