"""SQLite store of measurements, keyed by content hashes of code, data and hardware."""
