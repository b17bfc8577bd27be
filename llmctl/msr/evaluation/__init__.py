"""Metrics, their comparison between models, calibration, and the upper bounds of a data set."""
