"""After how many items to look again."""

from __future__ import annotations


def look_schedule(items: int) -> tuple[int, ...]:
    """Numbers of items after which to look again: 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, ... and all.

    The bounds allow any number of looks; eight items are worth starting an operator for, and four steps to a doubling
    keep a configuration from getting many more than it needs.
    """
    found, step = [8], 8
    while found[-1] + step < items:
        found.append(found[-1] + step)
        if found[-1] >= 8 * step:
            step *= 2
    return (*(look for look in found if look < items), items)
