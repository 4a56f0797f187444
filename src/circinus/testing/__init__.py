"""Test support: engine conformance tests, a simulated engine, and the controller on a simulated clock."""
