"""What was recorded of each item, to answer from instead of computing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circinus.spec import Configuration, KnobValues


@dataclass(frozen=True)
class RecordedRun:
    """One operator's work on one item, alone, with the fewest CPUs it may be given."""

    service_s: float
    output_bytes: float


@dataclass(frozen=True)
class Recordings:
    """What the profile store holds of one pipeline, by prefix and item."""

    pipeline: str
    items: tuple[str, ...]
    """Keys of the items for which every prefix asked for was recorded, held-out ones first."""
    input_bytes: Mapping[str, float]
    """Item key -> size of the pipeline's input as it is sent."""
    runs: Mapping[Configuration, Mapping[str, RecordedRun]]
    """Prefix -> item key -> run."""
    outputs: Mapping[Configuration, Mapping[str, bytes]]
    """Prefix of a sink -> item key -> its output, packed."""
    batch_ratios: Mapping[tuple[str, KnobValues], Mapping[tuple[float, int], float]]
    """(operator, its own knob values) -> `OperatorProfile.batch_ratio`."""

    def run(self, prefix: Configuration, item_key: str) -> RecordedRun:
        """How the last operator of `prefix` did on an item.

        Raises:
            ProfileError: it was not recorded.
        """
        raise NotImplementedError

    def output(self, prefix: Configuration, item_key: str) -> Any:
        """What the sink at the end of `prefix` answered for an item.

        Raises:
            ProfileError: it was not recorded.
        """
        raise NotImplementedError


def load_recordings(store: Path, pipeline_name: str, prefixes: Iterable[Configuration]) -> Recordings:
    """Read what the latest measurements of a pipeline recorded under `prefixes` (`RouteStage.prefix`).

    Needs neither the specification nor the user's modules, so that an engine can call it.

    Raises:
        ProfileError: there is no store, or a prefix has no recording.
    """
    raise NotImplementedError
