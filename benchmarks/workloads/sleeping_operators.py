"""Application that sleeps for a fixed time on each item.

It is copied next to the specification of `edge_and_cloud`. Plans do not depend on the machine and its load.
"""

from __future__ import annotations

import time

from circinus.operators import Item, operator

PAUSE_S = 0.1


@operator
def look(page: int) -> int:
    """Return the page."""
    time.sleep(PAUSE_S)
    return page


def pages(items: int = 40) -> list[Item]:
    """Return the data set."""
    return [Item(f"page-{page:03d}", page, page) for page in range(items)]


def equal(output: int, truth: int) -> float:
    """Return 1 for a right answer, else 0."""
    return float(output == truth)
