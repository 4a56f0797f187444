"""Attacks on the product: hostile input, odd environments, faults, overload and hours of work."""
