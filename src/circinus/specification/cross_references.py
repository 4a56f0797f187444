"""What must agree between documents: every reference leads somewhere, and what is asked for can exist there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from circinus.errors import Diagnostic
from circinus.specification.diagnostics import Issue, describe, did_you_mean, expected_choice
from circinus.specification.document import Document
from circinus.specification.document_validators import get_field, list_entries, named_entries, text_entries
from circinus.specification.infrastructure import Infrastructure, Network, Pool
from circinus.specification.pipeline import MetricSpec, OperatorSpec, Pipeline
from circinus.specification.query import PinnedOperator, Query
from circinus.specification.slo import AccuracySlo, Slos
from circinus.specification.units import SIZE


def check_references(documents: Sequence[Document], complete: bool = True) -> list[Diagnostic]:
    """Everything wrong between `documents`.

    Args:
        documents: all of one specification, in the order in which they were read.
        complete: whether these are all; where some could not be read, a name that leads nowhere may be theirs.

    What is faulty within itself is passed over. Where there is no infrastructure at all, nothing is said about sites,
    tiers and machines: pipelines can be profiled without one.
    """
    return [fault for part in _Checks(documents, complete).all() for fault in part]


@dataclass(frozen=True)
class _Checks:
    documents: Sequence[Document]
    complete: bool

    def all(self) -> Iterator[list[Diagnostic]]:
        yield [document.fault(wrong) for document, wrong in self._same_names()]
        places = [document for document in self.documents if document.kind == "Infrastructure"]
        infrastructure = places[0] if len(places) == 1 else None
        machines = infrastructure.content if infrastructure is not None else None
        network = Network(machines) if isinstance(machines, Infrastructure) else None
        for document in self.documents:
            if document.kind == "Pipeline":
                wrongs = [*self._tiers(document, infrastructure), *self._demands(document, network)]
            elif document.kind == "Query":
                wrongs = [
                    *self._pipeline(document),
                    *self._source(document, infrastructure, network),
                    *self._tenant(document, infrastructure),
                    *self._pins(document, network),
                ]
            else:
                continue
            yield [document.fault(wrong) for wrong in wrongs]

    def _same_names(self) -> Iterator[tuple[Document, Issue]]:
        first: dict[tuple[str, str | None], Document] = {}
        for document in self.documents:
            key = (document.kind, document.name if document.kind != "Infrastructure" else None)
            earlier = first.setdefault(key, document)
            if earlier is document or (document.name is None and document.kind != "Infrastructure"):
                continue
            hint = f"the first is {earlier.location}"
            if document.kind == "Infrastructure":
                yield document, Issue(("name",), "a second Infrastructure", "one in a specification", hint)
            else:
                expected = f"a name that no other {document.kind} has"
                yield document, Issue(("name",), f"{describe(document.name)} again", expected, hint)

    def _pipeline(self, query: Document) -> Iterator[Issue]:
        name = get_field(query.content, "pipeline")
        pipelines = [document for document in self.documents if document.kind == "Pipeline"]
        names = [pipeline.name for pipeline in pipelines if pipeline.name is not None]
        if not isinstance(name, str):
            return
        if name not in names:
            if self.complete and len(names) == len(pipelines):
                hint = did_you_mean(name, names) or ("" if names else "give the file of its pipeline as well")
                yield Issue(("pipeline",), describe(name), expected_choice(names, "a pipeline"), hint)
            return
        metric = next(pipeline for pipeline in pipelines if pipeline.name == name).valid_part(("metric",), MetricSpec)
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
            found = f"{describe(source)}, from where no pool can be reached"
            yield Issue(
                ("source",), found, "a site with a pool of its own, or with links to a pool that is not private"
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
        """What is pinned must be there: operators and choices of the pipeline, pools that are open to the query."""
        content = query.content
        pipeline = next(
            (d for d in self.documents if d.kind == "Pipeline" and d.name == get_field(content, "pipeline")), None
        )
        if not isinstance(content, Query) or pipeline is None or not isinstance(pipeline.content, Pipeline):
            return
        operators = {operator.name: operator for operator in pipeline.content.operators}
        for position, pinned in enumerate(content.pin or ()):
            operator = operators.get(pinned.name)
            if operator is None:
                expected = expected_choice(list(operators), f"an operator of the pipeline {pipeline.name}")
                yield Issue(("pin", position), describe(pinned.name), expected, did_you_mean(pinned.name, operators))
                continue
            for wrong in (*_pinned_knobs(pinned, operator), *_pinned_pool(pinned, operator, content, network)):
                yield wrong.with_prefix("pin", position)

    def _tiers(self, pipeline: Document, infrastructure: Document | None) -> Iterator[Issue]:
        if infrastructure is None:
            return
        given = get_field(infrastructure.content, "tiers")
        tiers = (
            [n for _, n in text_entries(given)] if given is not None else Infrastructure.model_fields["tiers"].default
        )
        for position, operator in list_entries(get_field(pipeline.content, "operators")):
            for place, tier in text_entries(get_field(operator, "allowed_tiers")):
                if tiers and tier not in tiers:
                    path = ("operators", position, "allowed_tiers", place)
                    expected = expected_choice(tiers, "a tier of the infrastructure")
                    yield Issue(path, describe(tier), expected, did_you_mean(tier, tiers))

    def _demands(self, pipeline: Document, network: Network | None) -> Iterator[Issue]:
        if network is None:
            return
        for position, _ in list_entries(get_field(pipeline.content, "operators")):
            operator = pipeline.valid_part(("operators", position), OperatorSpec)
            if operator is not None:
                for wrong in _unmet(operator, network.infrastructure):
                    yield wrong.with_prefix("operators", position)


def _accuracy(slo: AccuracySlo, metric: MetricSpec) -> Iterator[Issue]:
    right = ">=" if metric.direction == "maximize" else "<="
    if slo.comparison != right:
        expected = f"{right}, since the metric {metric.name} is to be {metric.direction}d"
        yield Issue(("slos", "accuracy", "comparison"), slo.comparison, expected)
    least, greatest = metric.range
    if not least <= slo.threshold <= greatest:
        expected = f"a score from {least:g} to {greatest:g}, the range of the metric {metric.name}"
        yield Issue(("slos", "accuracy", "threshold"), f"{slo.threshold:g}", expected)


def _pinned_knobs(pinned: PinnedOperator, operator: OperatorSpec) -> Iterator[Issue]:
    """Knobs that the operator does not have, and values that are none of their choices."""
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
    """A pool that is not there, not open to the query, or on a tier that the operator must not run on."""
    if network is None or pinned.pool is None or query.source not in {s.name for s in network.infrastructure.sites}:
        return
    tiers = operator.allowed_tiers
    there = {p.name: p.nodes for p in network.accessible_pools(query.source) if tiers is None or p.tier in tiers}
    allowed = [name for name, nodes in there.items() if nodes > 0]
    if pinned.pool in there and pinned.pool not in allowed:
        yield Issue(
            ("pool",), f"{describe(pinned.pool)}, which has no nodes", expected_choice(allowed, "a pool that has some")
        )
    elif pinned.pool not in allowed:
        expected = expected_choice(allowed, f"a pool that {operator.name} of a query from {query.source} may run in")
        yield Issue(("pool",), describe(pinned.pool), expected, did_you_mean(pinned.pool, allowed))


def _unmet(operator: OperatorSpec, infrastructure: Infrastructure) -> Iterator[Issue]:
    """Why no pool could hold one replica of `operator`, however many nodes it had; nothing where one could."""
    allowed = operator.allowed_tiers
    if allowed is not None and not set(allowed) <= set(infrastructure.tiers):
        return
    pools = [pool for pool in infrastructure.pools if allowed is None or pool.tier in allowed]
    if not pools:
        tiers = sorted({pool.tier for pool in infrastructure.pools}, key=infrastructure.tiers.index)
        expected = f"a tier that has a pool ({', '.join(tiers)})"
        yield Issue(("allowed_tiers",), ", ".join(allowed or ()), expected)
        return
    where = "" if allowed is None else f" on {' and '.join(allowed)}"
    needs = (
        _Need("cpus", "CPUs", min(operator.cpus), max(pool.cpus for pool in pools)),
        _Need("gpus", "GPUs", operator.gpus, max(pool.gpus for pool in pools)),
        _Need(
            "gpu_memory",
            "GPU memory",
            operator.gpu_memory_bytes,
            max(pool.gpu_memory_bytes for pool in pools),
            SIZE.format,
        ),
    )
    unmet = [need for need in needs if need.amount > need.most]
    for need in unmet:
        yield Issue((need.field,), need.spoken, f"at most {need.show(need.most)}, the most that one node has{where}")
    if not unmet and not any(_holds(pool, operator) for pool in pools):
        together = ", ".join(need.spoken for need in needs if need.amount > 0)
        yield Issue((), f"{together} together", f"what one node has{where}")


@dataclass(frozen=True)
class _Need:
    """What one replica needs of one resource, and the most that any one node has."""

    field: str
    what: str
    amount: float
    most: float
    show: Callable[[float], str] = "{:g}".format

    @property
    def spoken(self) -> str:
        return f"{self.what}: {self.show(self.amount)}"


def _holds(pool: Pool, operator: OperatorSpec) -> bool:
    return (
        pool.cpus >= min(operator.cpus)
        and pool.gpus >= operator.gpus
        and pool.gpu_memory_bytes >= operator.gpu_memory_bytes
    )
