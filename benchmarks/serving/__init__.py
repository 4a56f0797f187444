"""Benchmarks of engines: overhead, plan changes, crashes."""
