"""Prediction log, drift and performance reports, A/B analysis, alerts: what happens to a model after its release."""
