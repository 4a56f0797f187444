"""Checks across documents: references resolve, and requested resources exist."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from circinus.errors import Diagnostic
from circinus.specification.diagnostics import Issue, describe, did_you_mean, expected_choice
from circinus.specification.document import Document
from circinus.specification.document_validators import get_field, list_entries, named_entries, text_entries
from circinus.specification.infrastructure import Infrastructure, Pool
from circinus.specification.limits import MAX_FAULTS
from circinus.specification.network import Network
from circinus.specification.pipeline import MetricSpec, OperatorSpec, Pipeline
from circinus.specification.query import PinnedOperator, Query
from circinus.specification.slo import AccuracySlo, Slos
from circinus.specification.units import SIZE


def check_references(documents: Sequence[Document], complete: bool = True) -> list[Diagnostic]:
    """Return all problems between `documents`.

    Of very many problems the first are returned. Values that are invalid on their own are skipped. Without an
    infrastructure, references to sites, tiers and hardware are not checked, since profiling pipelines needs none.

    Args:
        complete: whether all documents were readable. If not, an unresolved name may belong to an unreadable document
            and is not reported.
    """
    return list(islice((fault for faults in _Checks(documents, complete).all() for fault in faults), MAX_FAULTS + 1))


@dataclass(frozen=True)
class _Checks:
    documents: Sequence[Document]
    complete: bool

    @cached_property
    def pipelines(self) -> Mapping[str | None, Document]:
        """Name -> first pipeline of this name; None -> one without a name, if there is any."""
        pipelines: dict[str | None, Document] = {}
        for document in self.documents:
            if document.kind == "Pipeline":
                pipelines.setdefault(document.name, document)
        return pipelines

    def all(self) -> Iterator[list[Diagnostic]]:
        yield [document.fault(issue) for document, issue in self._duplicate_names()]
        infrastructures = [document for document in self.documents if document.kind == "Infrastructure"]
        infrastructure = infrastructures[0] if len(infrastructures) == 1 else None
        content = infrastructure.content if infrastructure is not None else None
        network = Network(content) if isinstance(content, Infrastructure) else None
        for document in self.documents:
            if document.kind == "Pipeline":
                issues = [*self._tiers(document, infrastructure), *self._demands(document, network)]
            elif document.kind == "Query":
                issues = [
                    *self._pipeline(document),
                    *self._source(document, infrastructure, network),
                    *self._tenant(document, infrastructure),
                    *self._pins(document, network),
                ]
            else:
                continue
            yield [document.fault(issue) for issue in issues]

    def _duplicate_names(self) -> Iterator[tuple[Document, Issue]]:
        originals: dict[tuple[str, str | None], Document] = {}
        for document in self.documents:
            key = (document.kind, document.name if document.kind != "Infrastructure" else None)
            original = originals.setdefault(key, document)
            if original is document or (document.name is None and document.kind != "Infrastructure"):
                continue
            hint = f"the first is {original.location}"
            if document.kind == "Infrastructure":
                yield document, Issue(("name",), "a second Infrastructure", "one in each specification", hint)
            else:
                expected = f"a name that no other {document.kind} has"
                yield document, Issue(("name",), f"{describe(document.name)} again", expected, hint)

    def _pipeline(self, query: Document) -> Iterator[Issue]:
        name = get_field(query.content, "pipeline")
        if not isinstance(name, str):
            return
        if name not in self.pipelines:
            if self.complete and None not in self.pipelines:
                names = [name for name in self.pipelines if name is not None]
                hint = did_you_mean(name, names) or ("" if names else "pass the file of its pipeline as well")
                yield Issue(("pipeline",), describe(name), expected_choice(names, "a pipeline"), hint)
            return
        metric = self.pipelines[name].valid_part(("metric",), MetricSpec)
        slos = query.valid_part(("slos",), Slos)
        if metric is not None and slos is not None and slos.accuracy is not None:
            yield from _accuracy(slos.accuracy, metric)

    def _source(self, query: Document, infrastructure: Document | None, network: Network | None) -> Iterator[Issue]:
        source = get_field(query.content, "source")
        sites = (
            [] if infrastructure is None else [n for _, n in named_entries(get_field(infrastructure.content, "sites"))]
        )
        if not isinstance(source, str) or not sites:
            return
        if source not in sites:
            if self.complete:
                yield Issue(
                    ("source",), describe(source), expected_choice(sites, "a site"), did_you_mean(source, sites)
                )
        elif network is not None and not network.accessible_pools(source):
            unreachable = f"{describe(source)}, from which no pool can be reached"
            yield Issue(
                ("source",), unreachable, "a site with its own pool, or with links to and from one that is not private"
            )

    def _tenant(self, query: Document, infrastructure: Document | None) -> Iterator[Issue]:
        tenant = get_field(query.content, "tenant")
        if infrastructure is None or not isinstance(tenant, str):
            return
        given = get_field(infrastructure.content, "tenants")
        tenants = list(given) if isinstance(given, Mapping) else [name for _, name in named_entries(given)]
        if tenant not in tenants:
            hint = did_you_mean(tenant, tenants) or ("" if tenants else "list the tenants of the infrastructure")
            yield Issue(("tenant",), describe(tenant), expected_choice(tenants, "a tenant of the infrastructure"), hint)

    def _pins(self, query: Document, network: Network | None) -> Iterator[Issue]:
        """Yield pinned operators, choices and pools that do not exist or are not accessible to the query."""
        content = query.content
        pipeline = self.pipelines.get(content.pipeline) if isinstance(content, Query) else None
        if not isinstance(content, Query) or pipeline is None or not isinstance(pipeline.content, Pipeline):
            return
        operators = {operator.name: operator for operator in pipeline.content.operators}
        for position, pinned in enumerate(content.pin or ()):
            operator = operators.get(pinned.name)
            if operator is None:
                expected = expected_choice(list(operators), f"an operator of the pipeline {pipeline.name}")
                yield Issue(("pin", position), describe(pinned.name), expected, did_you_mean(pinned.name, operators))
                continue
            for issue in (*_pinned_knobs(pinned, operator), *_pinned_pool(pinned, operator, content, network)):
                yield issue.with_prefix("pin", position)

    def _tiers(self, pipeline: Document, infrastructure: Document | None) -> Iterator[Issue]:
        if infrastructure is None:
            return
        given = get_field(infrastructure.content, "tiers")
        tiers = (
            [n for _, n in text_entries(given)] if given is not None else Infrastructure.model_fields["tiers"].default
        )
        for position, operator in list_entries(get_field(pipeline.content, "operators")):
            for index, tier in text_entries(get_field(operator, "allowed_tiers")):
                if tiers and tier not in tiers:
                    path = ("operators", position, "allowed_tiers", index)
                    expected = expected_choice(tiers, "a tier of the infrastructure")
                    yield Issue(path, describe(tier), expected, did_you_mean(tier, tiers))

    def _demands(self, pipeline: Document, network: Network | None) -> Iterator[Issue]:
        if network is None:
            return
        for position, _ in list_entries(get_field(pipeline.content, "operators")):
            operator = pipeline.valid_part(("operators", position), OperatorSpec)
            if operator is not None:
                for issue in _unmet_demands(operator, network.infrastructure):
                    yield issue.with_prefix("operators", position)


def _accuracy(slo: AccuracySlo, metric: MetricSpec) -> Iterator[Issue]:
    comparison = ">=" if metric.direction == "maximize" else "<="
    if slo.comparison != comparison:
        expected = f"{comparison}, since the metric {metric.name} is {metric.direction}d"
        yield Issue(("slos", "accuracy", "comparison"), slo.comparison, expected)
    lowest, highest = metric.range
    if not lowest <= slo.threshold <= highest:
        expected = f"a score from {lowest:g} to {highest:g}, the range of the metric {metric.name}"
        yield Issue(("slos", "accuracy", "threshold"), f"{slo.threshold:g}", expected)


def _pinned_knobs(pinned: PinnedOperator, operator: OperatorSpec) -> Iterator[Issue]:
    """Yield pinned knobs that do not exist, and pinned values that are no choice of their knob."""
    choices = {knob.name: knob.choices for knob in operator.knobs}
    for position, knob in enumerate(pinned.knobs):
        if knob.name not in choices:
            expected = expected_choice(list(choices), f"a knob of the operator {operator.name}")
            yield Issue(("knobs", position), describe(knob.name), expected, did_you_mean(knob.name, choices))
        elif knob.value not in choices[knob.name]:
            expected = expected_choice(choices[knob.name], f"a choice of the knob {knob.name}")
            yield Issue(("knobs", position, "value"), describe(knob.value), expected)


def _pinned_pool(
    pinned: PinnedOperator, operator: OperatorSpec, query: Query, network: Network | None
) -> Iterator[Issue]:
    """Yield an issue if the pinned pool does not exist, is not accessible, or has a tier that is not allowed."""
    if network is None or pinned.pool is None or query.source not in {s.name for s in network.infrastructure.sites}:
        return
    tiers = operator.allowed_tiers
    nodes_of = {p.name: p.nodes for p in network.accessible_pools(query.source) if tiers is None or p.tier in tiers}
    eligible = [name for name, nodes in nodes_of.items() if nodes > 0]
    if pinned.pool in nodes_of and pinned.pool not in eligible:
        found = f"{describe(pinned.pool)}, which has no nodes"
        yield Issue(("pool",), found, expected_choice(eligible, "a pool with nodes"))
    elif pinned.pool not in eligible:
        expected = expected_choice(eligible, f"a pool that {operator.name} of a query from {query.source} may run in")
        yield Issue(("pool",), describe(pinned.pool), expected, did_you_mean(pinned.pool, eligible))


def _unmet_demands(operator: OperatorSpec, infrastructure: Infrastructure) -> Iterator[Issue]:
    """Yield the resources of one replica of `operator` that no node of any pool has."""
    allowed = operator.allowed_tiers
    if allowed is not None and not set(allowed) <= set(infrastructure.tiers):
        return
    pools = [pool for pool in infrastructure.pools if allowed is None or pool.tier in allowed]
    if not pools:
        tiers = sorted({pool.tier for pool in infrastructure.pools}, key=infrastructure.tiers.index)
        expected = f"a tier that has a pool ({', '.join(tiers)})"
        yield Issue(("allowed_tiers",), ", ".join(allowed or ()), expected)
        return
    location = "" if allowed is None else f" on {' and '.join(allowed)}"
    demands = (
        _Demand("cpus", "CPUs", min(operator.cpus), max(pool.cpus for pool in pools)),
        _Demand("gpus", "GPUs", operator.gpus, max(pool.gpus for pool in pools)),
        _Demand(
            "gpu_memory",
            "GPU memory",
            _min_gpu_memory_bytes(operator),
            max(pool.gpu_memory_bytes for pool in pools),
            SIZE.format,
        ),
    )
    unmet = [demand for demand in demands if demand.amount > demand.maximum]
    for demand in unmet:
        maximum = demand.format_value(demand.maximum)
        yield Issue((demand.field,), str(demand), f"at most {maximum}, the maximum of one node{location}")
    if not unmet and not any(_fits(pool, operator) for pool in pools):
        joint = ", ".join(str(demand) for demand in demands if demand.amount > 0)
        yield Issue((), f"{joint} together", f"at most the resources of one node{location}")


@dataclass(frozen=True)
class _Demand:
    """Demand of one replica for a resource, and the maximum of any node."""

    field: str
    resource: str
    amount: float
    maximum: float
    format_value: Callable[[float], str] = "{:g}".format

    def __str__(self) -> str:
        return f"{self.resource}: {self.format_value(self.amount)}"


def _min_gpu_memory_bytes(operator: OperatorSpec) -> float:
    return min([operator.gpu_memory_bytes, *(case.size_bytes for case in operator.gpu_memory_cases)])


def _fits(pool: Pool, operator: OperatorSpec) -> bool:
    return (
        pool.cpus >= min(operator.cpus)
        and pool.gpus >= operator.gpus
        and pool.gpu_memory_bytes >= _min_gpu_memory_bytes(operator)
    )
