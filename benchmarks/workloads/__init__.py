"""Specifications, operators and traffic of benchmarks."""
