"""Drift detection: monitors, audits of answers against ground truth, and re-profiling."""
