"""Exports: tables, the interactive map, contact sheets, TensorBoard."""
