"""The demonstration on the meeting pipeline."""
