"""The test suite as a benchmark."""
