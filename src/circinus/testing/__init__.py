"""Test support: engine conformance tests, fake and simulated engines, and random instances of planning."""
