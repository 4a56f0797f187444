"""What a replica does with a batch, and which items become one, whatever engine it runs in."""
