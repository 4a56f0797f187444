"""Text of an infrastructure with other numbers of nodes, with the comments of its file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from circinus.errors import PlanningError
from circinus.specification.document import read_document
from circinus.specification.infrastructure import Infrastructure, Pool
from circinus.specification.specification import Specification
from circinus.specification.yaml.reader import read_yaml
from circinus.specification.yaml.writer import to_yaml

_WIDTH = 4096
"""Columns beyond which lines are wrapped: lines stay as they are."""


def infrastructure_text(specification: Specification, infrastructure: Infrastructure, target: Path) -> str:
    """Return the YAML text of an infrastructure that differs from that of a specification in nodes and billing.

    Comments and order are those of the specification's file, if it has one. Its other documents are part of the text if
    that file is the target.

    Args:
        specification: has an infrastructure of this name.
        infrastructure: to write.
        target: file that the text is for.

    Raises:
        PlanningError: the file has other documents, and the infrastructure differs in more than that.
    """
    source = specification.locations.get(("Infrastructure", infrastructure.name))
    if source is not None and (file := Path(source.file)).exists():
        is_target, written = target.exists() and target.samefile(file), file.read_text(encoding="utf-8")
        text = _edited(written, infrastructure, keeps_others=is_target)
        trees, _ = read_yaml(text, str(target))
        if infrastructure in [document.content for tree in trees if (document := read_document(tree, "")[0])]:
            return _fixed_note(specification.required_infrastructure, infrastructure) + text
        if is_target and len(others := read_yaml(written, str(file))[0]) > 1:
            raise PlanningError(
                f"found {len(others)} documents, and an infrastructure that differs in more than nodes and billing",
                code="size.other_documents",
                location=str(target),
                hint="Write it to another file.",
            )
    return _fixed_note(specification.required_infrastructure, infrastructure) + to_yaml([infrastructure])


def _fixed_note(before: Infrastructure, after: Infrastructure) -> str:
    """Return a comment on the pools whose number of nodes was a range and is fixed now; empty without any."""
    elastic = [pool for pool in before.pools if pool.is_elastic and after.pool(pool.name).min_nodes is None]
    ranges = ", ".join(f"{pool.name} had {{min: {pool.base_nodes}, max: {pool.nodes}}}" for pool in elastic)
    return f"# Fixed numbers of nodes, chosen by `circinus size`: {ranges}.\n" if elastic else ""


def _edited(text: str, infrastructure: Infrastructure, *, keeps_others: bool) -> str:
    from ruamel.yaml import YAML
    from ruamel.yaml.util import load_yaml_guess_indent

    guesses = (load_yaml_guess_indent(document)[1:] for document in re.split(r"^---(?=\s)", text, flags=re.MULTILINE))
    indent, offset = next((guess for guess in guesses if guess[0]), (None, None))
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, _WIDTH
    yaml.indent(mapping=2, sequence=indent or 2, offset=offset or 0)
    documents = list(yaml.load_all(text))
    edited = [document for document in documents if _is_of(document, infrastructure)]
    for document in edited:
        _set_nodes(document["spec"]["pools"], infrastructure.pools)
    stream = StringIO()
    yaml.dump_all(documents if keeps_others else edited, stream)
    return stream.getvalue()


def _is_of(document: Any, infrastructure: Infrastructure) -> bool:
    is_infrastructure = isinstance(document, dict) and document.get("kind") == "Infrastructure"
    return is_infrastructure and document["metadata"]["name"] == infrastructure.name


def _set_nodes(written: Sequence[dict[str, Any]], pools: Sequence[Pool]) -> None:
    for entry, pool in zip(written, pools, strict=True):
        if entry.get("nodes", 1) != pool.nodes:
            entry["nodes"] = pool.nodes
        if entry.get("billing", "share") != pool.billing.value:
            entry["billing"] = pool.billing.value
