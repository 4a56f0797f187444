"""What things are called on the cluster."""

from __future__ import annotations

REPLICA = "replica"
"""The deployment within an operator's application."""
ROUTER = "router"
"""The deployment within a router's application."""


def router_name(site: str) -> str:
    """Of the application of a site's router."""
    return f"site-{site}"
