"""Benchmarks of estimates against closed forms, simulations and real engines."""
