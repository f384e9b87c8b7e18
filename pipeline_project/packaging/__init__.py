"""The package: what is served. Loading and verifying (no torch here), exports and quantisation."""
