"""The operating system: files, processes, logs and temporary folders."""
