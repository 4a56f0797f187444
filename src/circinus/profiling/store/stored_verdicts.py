"""Verdicts of the last profiling run, so that reading a profile does not compute them again.

A sampler's certificate for 120 configurations of millisecond operators took 54 s, and the profile without it 2 s.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, fields, replace

from circinus.profiling.profile import PipelineProfile, StoppingCertificate
from circinus.profiling.race.race_state import ConfigurationVerdict, Verdict
from circinus.profiling.store.measurement_keys import MeasurementKeys
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_queries import configuration_of
from circinus.profiling.store.store_writer import prefix_label
from circinus.specification import Specification

_RULES = 2
"""Version of the rules of verdicts; raise it where the same measurements lead to other verdicts."""


def write_verdicts(
    store: ProfileStore, keys: MeasurementKeys, specification: Specification, profile: PipelineProfile
) -> None:
    """Store verdicts and certificate of a profile, instead of those of earlier runs of the pipeline."""
    certificate = profile.certificate
    if certificate is None:
        return
    following = None if certificate.next is None else prefix_label(certificate.next)
    content = {
        "certificate": {**asdict(certificate), "next": following},
        "verdicts": [[prefix_label(c), v.verdict, v.reason] for c, v in profile.verdicts.items()],
    }
    with store.transaction():
        row = profile.pipeline, _content_hash(keys, specification, profile), json.dumps(content)
        store.write("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?)", [row])


def with_stored_verdicts(
    store: ProfileStore, keys: MeasurementKeys, specification: Specification, profile: PipelineProfile
) -> PipelineProfile | None:
    """Return the profile with the stored verdicts; None if there are none for its measurements, SLOs and hardware."""
    content_hash = _content_hash(keys, specification, profile)
    rows = store.rows("SELECT content FROM verdicts WHERE content_hash = ?", content_hash)
    if not rows:
        return None
    content = json.loads(rows[0][0])
    certificate = StoppingCertificate(**content["certificate"])
    if content["certificate"]["next"] is not None:
        following = configuration_of(json.loads(content["certificate"]["next"]))
        certificate = replace(certificate, next=following)
    verdicts = {
        configuration_of(json.loads(label)): ConfigurationVerdict(Verdict(verdict), reason)
        for label, verdict, reason in content["verdicts"]
    }
    return replace(profile, verdicts=verdicts, certificate=certificate)


def _content_hash(keys: MeasurementKeys, specification: Specification, profile: PipelineProfile) -> str:
    """Return the hash of everything that the verdicts depend on, apart from scores of other pipelines."""
    name = profile.pipeline
    queries = tuple(query for query in specification.queries if query.pipeline == name)
    used = Specification({name: specification.pipelines[name]}, specification.infrastructure, queries)
    of_certificate = [field.name for field in fields(StoppingCertificate)]
    digest = hashlib.sha256(repr((_RULES, of_certificate, used.fingerprint(), keys.origin)).encode())
    for part in _measurements(profile):
        digest.update(part)
    return digest.hexdigest()


def _measurements(profile: PipelineProfile) -> Iterator[bytes]:
    """Yield what the verdicts rest on, without start-up times and memory.

    These change with every start of an operator, such as that for the recordings of a replay, which measures no item of
    the profile.
    """
    yield repr((profile.dataset_fingerprint, profile.dataset_items, profile.machine, profile.failed)).encode()
    for measured in profile.configurations:
        yield str(measured.configuration).encode()
        yield measured.items.tobytes()
        yield measured.scores.tobytes()
        for operator in measured.operators.values():
            yield operator.service_s.tobytes()
            yield operator.output_bytes.tobytes()
            yield repr((sorted(operator.batch_ratio.items()), operator.speeds)).encode()
