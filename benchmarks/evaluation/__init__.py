"""Circinus and other planners on the same queries, judged by the same simulation of what really happens."""
