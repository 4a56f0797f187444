"""Batch queue and executors of replicas, shared by all engines."""
