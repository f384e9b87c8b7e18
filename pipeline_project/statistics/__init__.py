"""Metrics, intervals, paired and drift tests, mergeable histograms: NumPy and SciPy only, used by many stages."""
