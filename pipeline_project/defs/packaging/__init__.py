"""The packaging assets."""
