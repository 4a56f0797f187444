"""Speeds of machines and hardware classes: calibration, measured speeds and predicted service times."""
