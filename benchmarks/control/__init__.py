"""Benchmarks of the controller: bursts, drift, lost nodes."""
