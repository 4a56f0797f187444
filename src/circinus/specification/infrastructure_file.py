"""Text of an infrastructure with other numbers of nodes, with the comments of its file."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

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
    """
    source = specification.locations.get(("Infrastructure", infrastructure.name))
    if source is not None and (file := Path(source.file)).exists():
        is_target = target.exists() and target.samefile(file)
        text = _edited(file.read_text(encoding="utf-8"), infrastructure, keeps_others=is_target)
        trees, _ = read_yaml(text, str(target))
        if infrastructure in [document.content for tree in trees if (document := read_document(tree, "")[0])]:
            return text
    return to_yaml([infrastructure])


def _edited(text: str, infrastructure: Infrastructure, *, keeps_others: bool) -> str:
    from ruamel.yaml import YAML
    from ruamel.yaml.util import load_yaml_guess_indent

    _, indent, offset = load_yaml_guess_indent(text)
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
