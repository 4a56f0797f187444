"""Degradation under bursts: fallback ladders, their policy, and standby replicas."""
