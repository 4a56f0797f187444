"""The evaluation: one module and one make target for each benchmark, results as JSON and a table."""
