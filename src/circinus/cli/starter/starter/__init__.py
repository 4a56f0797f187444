"""A small application without any model: it mends mistyped words."""
