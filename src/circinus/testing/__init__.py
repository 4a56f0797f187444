"""The controller on a simulated clock."""
