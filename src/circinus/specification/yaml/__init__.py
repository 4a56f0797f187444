"""YAML in and out: a reader that keeps line numbers, and a writer with units."""
