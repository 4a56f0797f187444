"""How fast operators are on hardware classes: as measured there, else as declared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from circinus.profiling.bounded import Interval
from circinus.spec import HardwareClass


@dataclass(frozen=True)
class MeasuredSpeed:
    """One operator with its knobs on a node of one hardware class, against the profile, item by item."""

    speed: Interval
    """Seconds of the profile over seconds there: the median over items, with distribution-free bounds."""
    items: int
    """That it stands on."""
    startup_s: float | None = None
    """Seconds there from asking for a replica until it can take work; None: none was started there."""


@dataclass(frozen=True)
class Speeds:
    """Relative speeds of one operator with its knobs, by hardware class."""

    measured: Mapping[str, MeasuredSpeed] = field(default_factory=dict)
    """By the name of the class; nothing of classes that it was not measured on."""

    def expected(self, hardware: HardwareClass) -> float:
        """The speed as well as it is known."""
        found = self.measured.get(hardware.name)
        return hardware.speed if found is None else found.speed.value

    def guaranteed(self, hardware: HardwareClass) -> float:
        """The speed that it surely has, as far as bounds hold: what promises are made with."""
        found = self.measured.get(hardware.name)
        return hardware.guaranteed_speed if found is None else found.speed.lower


DECLARED = Speeds()
"""Nothing was measured on any other hardware."""
