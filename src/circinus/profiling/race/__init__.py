"""Race among configurations: which ones to measure on more items, and when to stop (racing, Maron & Moore 1997)."""
