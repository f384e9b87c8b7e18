"""Image classification as software-defined assets."""
