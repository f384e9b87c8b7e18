"""The training assets."""
