"""Measurement traces: recorded measurements that profiling runs on instead of the operators."""
