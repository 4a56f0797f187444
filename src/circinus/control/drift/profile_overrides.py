"""What was measured again because it moved: it goes before what a profile store says, until that is newer."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from circinus.control.drift.audit_scores import Agreements
from circinus.control.drift.reprofile import ReprofileResult
from circinus.errors import ServingError
from circinus.profiling import PipelineProfile
from circinus.profiling.measurement.pickling import pickle_value, unpickle_value

Profiles = Mapping[str, PipelineProfile]


@dataclass(frozen=True)
class ProfileOverrides:
    """Of some pipelines."""

    profiles: Profiles = field(default_factory=dict)
    """As they were measured again."""
    stored: Mapping[str, str] = field(default_factory=dict)
    """Pipeline -> `_signature` of what the store said then."""
    agreements: Agreements = field(default_factory=dict)
    """Of pipelines whose data moved: those recorded before say nothing any more."""
    data_moved: frozenset[str] = frozenset()
    """Pipelines that were measured on other items."""
    without_truth: frozenset[str] = frozenset()
    """Those of them whose scores are against the answers of the most accurate configuration."""

    def merged_with(self, again: ReprofileResult, stored: Profiles) -> ProfileOverrides:
        """With more.

        Args:
            again: what was measured.
            stored: what the store says of the pipelines.
        """
        return ProfileOverrides(
            profiles={**self.profiles, **again.profiles},
            stored={**self.stored, **{name: _signature(stored[name]) for name in again.profiles if name in stored}},
            agreements=again.merged_agreements(self.agreements),
            data_moved=self.data_moved | again.pipelines_with_data_drift,
            without_truth=(self.without_truth - again.pipelines_with_data_drift) | again.pipelines_without_truth,
        )

    def without_stale(self, stored: Profiles) -> ProfileOverrides:
        """Without pipelines of which the store says something else by now: somebody profiled, or other code is used."""
        old = {
            name for name in self.profiles if name not in stored or _signature(stored[name]) != self.stored.get(name)
        }
        if not old:
            return self
        return replace(
            self,
            profiles={name: profile for name, profile in self.profiles.items() if name not in old},
            stored={name: told for name, told in self.stored.items() if name not in old},
            agreements={pair: scores for pair, scores in self.agreements.items() if pair[0] not in old},
            data_moved=self.data_moved - old,
            without_truth=self.without_truth - old,
        )

    def document(self) -> str | None:
        """Text from which `from_document` makes the same; None: there is nothing to keep."""
        if not self.profiles:
            return None
        return base64.b85encode(
            pickle_value(
                (dict(self.profiles), dict(self.stored), dict(self.agreements), self.data_moved, self.without_truth)
            )
        ).decode()

    @classmethod
    def from_document(cls, text: str) -> ProfileOverrides:
        """As it was kept.

        Raises:
            ServingError: it is damaged, or another version of Circinus kept it.
        """
        try:
            return cls(*unpickle_value(base64.b85decode(text)))
        except Exception as error:  # pickles raise whatever they like
            raise ServingError(
                f"new measurements cannot be read: {type(error).__name__}: {error}",
                code="control.unreadable_measurements",
            ) from error


def _signature(profile: PipelineProfile) -> str:
    """Differs where a profile was made anew."""
    items = sum(len(found.items) for found in profile.configurations)
    versions = sorted(profile.code_versions.items())
    return f"{profile.dataset_fingerprint} {len(profile.configurations)} {items} {versions}"
