"""The dataset assets."""
