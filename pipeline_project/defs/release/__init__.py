"""The release assets."""
