"""Workloads from published traces."""
