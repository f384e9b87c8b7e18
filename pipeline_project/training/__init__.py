"""Models, the training loop, tuning, cross-validation and tracking."""
