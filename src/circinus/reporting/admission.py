"""What is said of one more query."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from circinus.matching import Admission, ShadowPrice
from circinus.reporting.explanation import assignment_explanation, rejection_explanation
from circinus.spec.spoken import format_usd_per_h


def admission_text(admission: Admission) -> RenderableType:
    """Its plan, or why it gets none and what a little more of what binds would be worth."""
    if admission.assignment is not None:
        return assignment_explanation(admission.assignment, admission.query)
    assert admission.rejection is not None
    worth = [Text(_worth(price)) for price in admission.binding]
    return Group(rejection_explanation(admission.rejection, admission.query), *worth)


def _worth(price: ShadowPrice) -> str:
    """`pool edge: cpus is 97% used; one more CPU is worth a weight of 0.4 to those that were planned together`."""
    words = [f"a weight of {price.weight:.3g}"] if price.weight > 0 else []
    words += [f"{format_usd_per_h(price.saving_usd_per_h)} saved"] if price.saving_usd_per_h > 0 else []
    said = " and ".join(words) or "nothing"
    return (
        f"{price.resource} is {price.used:.0%} used; one more {price.unit} is worth {said} to those that were planned "
        "together"
    )
