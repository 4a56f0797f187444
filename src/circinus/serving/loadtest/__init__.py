"""Load tests: open-loop traffic, scoring, and the report against SLOs."""
