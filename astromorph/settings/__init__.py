"""All settings: names, defaults, ranges and reasons, and the steps that use them."""
