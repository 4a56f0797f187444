"""Testbeds: networks and clusters on one machine."""
