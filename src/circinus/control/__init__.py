"""Keeping objectives while the world changes: policies that are pure functions, and what carries them out."""
