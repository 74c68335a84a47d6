"""What other programs and people open: tables, map, galleries, TensorBoard."""
