"""Alternatives that Circinus is compared with."""
