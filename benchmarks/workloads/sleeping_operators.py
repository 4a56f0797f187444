"""An application that takes the same time for everything, asleep: copied beside the specification of
`serving_lost_scene`, so that plans are the same on every machine and however busy it is."""

from __future__ import annotations

import time

from circinus.operators import Item, operator

PAUSE_S = 0.1


@operator
def look(page: int) -> int:
    """What is asked for."""
    time.sleep(PAUSE_S)
    return page


def pages(items: int = 40) -> list[Item]:
    """The data set."""
    return [Item(f"page-{page:03d}", page, page) for page in range(items)]


def equal(found: int, truth: int) -> float:
    """1 where it is right."""
    return float(found == truth)
