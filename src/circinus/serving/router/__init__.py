"""Routing of requests over deployments, the same in every engine; engines differ in the transport of values."""
