"""Events of parts of split routes that lose their last replica."""

from __future__ import annotations

from circinus.control.lost_parts import LostParts
from circinus.serving import EngineStatus, Mode
from circinus.serving.engine import PartStatus, SplitStatus


def _status(*available: bool, share: float = 0.5) -> EngineStatus:
    parts = tuple(PartStatus(share, 0.5, 10, available=part) for part in available)
    return EngineStatus(Mode.REAL, (), ("q",), splits=(SplitStatus("q", parts),) if parts else ())


def test_a_part_that_is_lost_and_comes_back_is_told_once_each() -> None:
    lost = LostParts()
    told = [lost.poll(_status(*available), 1.0) for available in ([True, True], [True, False], [True, False])]
    told += [lost.poll(_status(*available), 2.0) for available in ([False, True], [], [True, True])]
    facts = [
        [(event.subject, event.details["part"], event.details["available"]) for event in polled] for polled in told
    ]
    assert facts == [
        [],
        [("q", 2, False)],
        [],
        [("q", 1, False), ("q", 2, True)],
        [],
        [("q", 1, True)],
    ]


def test_a_part_of_other_routes_is_no_lost_part_that_has_replicas_again() -> None:
    lost = LostParts()
    assert len(lost.poll(_status(True, False), 1.0)) == 1
    assert lost.poll(_status(True, True, share=0.4), 2.0) == []
    assert lost.poll(_status(True, True), 3.0) == []
