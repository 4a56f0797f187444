"""A whole specification: pipelines, infrastructure and queries that refer to each other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from circinus.spec.infrastructure import Infrastructure
from circinus.spec.pipeline import Pipeline
from circinus.spec.query import Query


@dataclass(frozen=True)
class Specification:
    """Everything the planner is told. All references have been checked when it came from `load_specification`."""

    pipelines: Mapping[str, Pipeline]
    infrastructure: Infrastructure | None
    queries: tuple[Query, ...]
    module_paths: tuple[Path, ...] = ()
    """Folders put before `sys.path` when operators, metrics and data sets are imported (those of the files)."""
    files: tuple[Path, ...] = ()

    def fingerprint(self) -> str:
        """SHA-256 over the content (not over file names or layout)."""
        digest = hashlib.sha256()
        for _, pipeline in sorted(self.pipelines.items()):
            digest.update(pipeline.model_dump_json().encode())
        if self.infrastructure is not None:
            digest.update(self.infrastructure.model_dump_json().encode())
        for query in sorted(self.queries, key=lambda query: query.name):
            digest.update(query.model_dump_json().encode())
        return digest.hexdigest()
