"""The files that steps exchange: names, columns, readers and writers."""
