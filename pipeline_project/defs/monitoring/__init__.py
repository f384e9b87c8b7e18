"""The monitoring assets."""
