"""Bursts: down a ladder of plans and up again."""
