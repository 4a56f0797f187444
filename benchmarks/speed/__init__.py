"""Times of profiling and of the commands of planning."""
