"""Random plans and matchings."""
