"""Re-profiled data that overrides the profile store until the store is newer."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from circinus.control.drift.audit_scores import Agreements
from circinus.errors import ServingError
from circinus.operators.pickling import pickle_value, unpickle_value
from circinus.profiling import PipelineProfile
from circinus.seals import SEAL_BYTES, is_sealed, seal

_PURPOSE = "re-profiled data"

Profiles = Mapping[str, PipelineProfile]


@dataclass(frozen=True)
class ProfileOverrides:
    """Re-profiled data of some pipelines."""

    profiles: Profiles = field(default_factory=dict)
    """Re-profiled profiles by pipeline."""
    stored: Mapping[str, str] = field(default_factory=dict)
    """Pipeline -> `_signature` of the stored profile at re-profiling."""
    agreements: Agreements = field(default_factory=dict)
    """Agreements of pipelines with drifted data, in place of those of recorded outputs."""
    data_moved: frozenset[str] = frozenset()
    """Pipelines that were measured on other items."""
    without_truth: frozenset[str] = frozenset()
    """Pipelines of `data_moved` whose scores are against the most accurate configuration's outputs."""
    notes: tuple[str, ...] = ()
    """Descriptions of the measurements of this process."""

    def merged_with(self, newer: ProfileOverrides, stored: Profiles) -> ProfileOverrides:
        kept = {pair: scores for pair, scores in self.agreements.items() if pair[0] not in newer.data_moved}
        return ProfileOverrides(
            profiles={**self.profiles, **newer.profiles},
            stored={**self.stored, **{name: _signature(stored[name]) for name in newer.profiles if name in stored}},
            agreements={**kept, **newer.agreements},
            data_moved=self.data_moved | newer.data_moved,
            without_truth=(self.without_truth - newer.data_moved) | newer.without_truth,
            notes=(*self.notes, *newer.notes),
        )

    def without_stale(self, stored: Profiles) -> ProfileOverrides:
        """Return the overrides without pipelines whose stored profile changed since, by profiling or other code."""
        stale = {
            name for name in self.profiles if name not in stored or _signature(stored[name]) != self.stored.get(name)
        }
        if not stale:
            return self
        return replace(
            self,
            profiles={name: profile for name, profile in self.profiles.items() if name not in stale},
            stored={name: signature for name, signature in self.stored.items() if name not in stale},
            agreements={pair: scores for pair, scores in self.agreements.items() if pair[0] not in stale},
            data_moved=self.data_moved - stale,
            without_truth=self.without_truth - stale,
        )

    def document(self) -> str | None:
        """Return text that `from_document` decodes, or None if there are no overrides or no key to seal them with."""
        if not self.profiles:
            return None
        content = dict(self.profiles), dict(self.stored), dict(self.agreements), self.data_moved, self.without_truth
        data = pickle_value(content)
        proof = seal(_PURPOSE, data)
        return base64.b85encode(proof + data).decode() if proof else None

    @classmethod
    def from_document(cls, text: str) -> ProfileOverrides:
        """Return the overrides from stored text.

        Raises:
            ServingError: the text is damaged, or another user or version of Circinus wrote it.
        """
        try:
            content = base64.b85decode(text)
            proof, data = content[:SEAL_BYTES], content[SEAL_BYTES:]
            if not is_sealed(_PURPOSE, data, proof):
                raise ValueError("no seal of this user, and unpickling may run code")
            return cls(*unpickle_value(data))
        except Exception as error:  # unpickling may raise anything
            raise ServingError(
                f"cannot read re-profiled data: {type(error).__name__}: {error}",
                code="control.unreadable_measurements",
            ) from error


def _signature(profile: PipelineProfile) -> str:
    """Return a text that changes when a profile is renewed."""
    items = sum(len(configuration.items) for configuration in profile.configurations)
    versions = sorted(profile.code_versions.items())
    return f"{profile.dataset_fingerprint} {len(profile.configurations)} {items} {versions}"
