"""Statistics on arrays: confidence sequences, tests, quantiles and sample sizes, each with its source."""
