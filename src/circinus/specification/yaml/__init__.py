"""YAML reader with line numbers, and YAML writer with units."""
