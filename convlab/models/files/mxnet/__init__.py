"""The files that MXNet's `export` writes, read without MXNet."""
