"""From good days to a dataset version: groups of duplicates, splits that grow without moving, reading, profile."""
