"""Circinus: SLO-aware query planning for compound AI serving."""

__version__ = "0.1.0"
