"""The `make bench-*` programs."""
