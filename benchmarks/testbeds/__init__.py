"""Networks and clusters on one machine."""
