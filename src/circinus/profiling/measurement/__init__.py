"""Measurement of operators: worker processes, the prefix cache, batches and CPUs, and recordings for replay."""
