"""Writer of models as YAML documents in short forms."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from typing import Any

from circinus.specification.document import API_VERSION
from circinus.specification.infrastructure import Infrastructure
from circinus.specification.pipeline import Pipeline
from circinus.specification.query import PinnedOperator, Query

_UNCHANGED_FIELDS = ("knobs", "arguments")
_WORD = r"[\w./%$<>=+-]+(?::[\w./%$<>=+-]+)*"
_PLAIN = re.compile(rf"(?=[\w$]){_WORD}(?: {_WORD})*")
_MAX_EXACT_INTEGER = 2**53


def to_yaml(models: Sequence[Pipeline | Infrastructure | Query]) -> str:
    """Return YAML documents that load back to equal models, without fields that have their default."""
    from ruamel.yaml import YAML
    from ruamel.yaml.nodes import ScalarNode
    from ruamel.yaml.representer import SafeRepresenter

    class Representer(SafeRepresenter):
        """Representer that puts all texts except plain words into double quotes, to prevent misreading."""

        def represent_str(self, data: str) -> ScalarNode:
            style = None if _PLAIN.fullmatch(data) else '"'
            return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    Representer.add_representer(str, Representer.represent_str)
    writer = YAML(typ="safe", pure=True)
    writer.Representer = Representer
    writer.default_flow_style = None  # lists of plain values on one line
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # typed as None
    writer.width = 120
    writer.allow_unicode = True
    stream = StringIO()
    writer.dump_all([_document(model) for model in models], stream)
    return stream.getvalue()


def _document(model: Pipeline | Infrastructure | Query) -> dict[str, Any]:
    kind = type(model).__name__
    spec = model.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"name"})
    _SHORTENED[kind](model, spec)
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": model.name}, "spec": _plain(spec)}


def _plain(value: Any) -> Any:
    """Return `value` with whole floats as integers, except in knob values and data set arguments."""
    if isinstance(value, dict):
        return {key: part if key in _UNCHANGED_FIELDS else _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < _MAX_EXACT_INTEGER:
        return int(value)
    return value


def _pipeline(model: Pipeline, spec: dict[str, Any]) -> None:
    for operator in spec["operators"]:
        if "knobs" in operator:
            operator["knobs"] = {knob["name"]: _knob(knob) for knob in operator["knobs"]}


def _knob(knob: Mapping[str, Any]) -> Any:
    fields = {field: value for field, value in knob.items() if field != "name"}
    return fields["choices"] if set(fields) == {"choices"} else fields


def _infrastructure(model: Infrastructure, spec: dict[str, Any]) -> None:
    spec["sites"] = [site.name for site in model.sites]
    for pool, written in zip(model.pools, spec["pools"], strict=True):
        if written.pop("nodes.min", None) is not None:
            written["nodes"] = {"min": pool.min_nodes, "max": pool.nodes}
    if model.tenants:
        spec["tenants"] = {tenant.name: tenant.at_least for tenant in model.tenants}


def _query(model: Query, spec: dict[str, Any]) -> None:
    texts = [f"{kind} {slo}" for kind, slo in model.slos.by_kind.items()]
    spec.pop("slos", None)
    if texts:
        spec["slos"] = texts
    if "arrivals" in spec:
        arrivals = {field: value for field, value in spec["arrivals"].items() if field != "times_s"}
        spec["arrivals"] = arrivals["kind"] if set(arrivals) == {"kind"} else arrivals
    if model.pin is not None:
        spec["pin"] = {pinned.name: _pinned(pinned) for pinned in model.pin}


def _pinned(operator: PinnedOperator) -> Any:
    knobs = {knob.name: knob.value for knob in operator.knobs}
    if not knobs:
        return operator.pool
    return {"knobs": knobs} if operator.pool is None else {"pool": operator.pool, "knobs": knobs}


_SHORTENED: Mapping[str, Callable[[Any, dict[str, Any]], None]] = {
    "Pipeline": _pipeline,
    "Infrastructure": _infrastructure,
    "Query": _query,
}
