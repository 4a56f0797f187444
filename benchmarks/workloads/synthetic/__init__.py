"""Synthetic pipelines with known optimum."""
