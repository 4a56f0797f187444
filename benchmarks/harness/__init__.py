"""Results, checkpoints and figures of benchmarks."""
