"""The engine of one machine: replicas as processes, links and slower hardware emulated."""
