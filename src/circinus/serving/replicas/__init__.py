"""Executors of replicas, shared by all engines."""
