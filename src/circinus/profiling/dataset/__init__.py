"""Data sets of pipelines: items, their measurement order, strata and scores."""
