"""The governance assets."""
