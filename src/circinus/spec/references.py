"""What must agree between documents: every reference leads somewhere, and what is asked for can exist there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from circinus.errors import Fault
from circinus.spec.consistency import entries, named, read, texts
from circinus.spec.envelope import Document
from circinus.spec.faults import Wrong, describe, did_you_mean, one_of
from circinus.spec.infrastructure import Infrastructure, Pool
from circinus.spec.network import Network
from circinus.spec.pipeline import MetricSpec, OperatorSpec, Pipeline
from circinus.spec.query import PinnedOperator, Query
from circinus.spec.slo import AccuracySlo, Slos
from circinus.spec.units import SIZE


def check_references(documents: Sequence[Document], complete: bool = True) -> list[Fault]:
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

    def all(self) -> Iterator[list[Fault]]:
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

    def _same_names(self) -> Iterator[tuple[Document, Wrong]]:
        first: dict[tuple[str, str | None], Document] = {}
        for document in self.documents:
            key = (document.kind, document.name if document.kind != "Infrastructure" else None)
            earlier = first.setdefault(key, document)
            if earlier is document or (document.name is None and document.kind != "Infrastructure"):
                continue
            hint = f"the first is {earlier.place}"
            if document.kind == "Infrastructure":
                yield document, Wrong(("name",), "a second Infrastructure", "one in a specification", hint)
            else:
                expected = f"a name that no other {document.kind} has"
                yield document, Wrong(("name",), f"{describe(document.name)} again", expected, hint)

    def _pipeline(self, query: Document) -> Iterator[Wrong]:
        name = read(query.content, "pipeline")
        pipelines = [document for document in self.documents if document.kind == "Pipeline"]
        names = [pipeline.name for pipeline in pipelines if pipeline.name is not None]
        if not isinstance(name, str):
            return
        if name not in names:
            if self.complete and len(names) == len(pipelines):
                hint = did_you_mean(name, names) or ("" if names else "give the file of its pipeline as well")
                yield Wrong(("pipeline",), describe(name), one_of(names, "a pipeline"), hint)
            return
        metric = next(pipeline for pipeline in pipelines if pipeline.name == name).part(("metric",), MetricSpec)
        slos = query.part(("slos",), Slos)
        if metric is not None and slos is not None and slos.accuracy is not None:
            yield from _accuracy(slos.accuracy, metric)

    def _source(self, query: Document, infrastructure: Document | None, network: Network | None) -> Iterator[Wrong]:
        source = read(query.content, "source")
        sites = [] if infrastructure is None else [n for _, n in named(read(infrastructure.content, "sites"))]
        if not isinstance(source, str) or not sites:
            return
        if source not in sites:
            if self.complete:
                yield Wrong(("source",), describe(source), one_of(sites, "a site"), did_you_mean(source, sites))
        elif network is not None and not network.open_pools(source):
            found = f"{describe(source)}, from where no pool can be reached"
            yield Wrong(
                ("source",), found, "a site with a pool of its own, or with links to a pool that is not private"
            )

    def _tenant(self, query: Document, infrastructure: Document | None) -> Iterator[Wrong]:
        tenant = read(query.content, "tenant")
        if infrastructure is None or not isinstance(tenant, str):
            return
        given = read(infrastructure.content, "tenants")
        tenants = list(given) if isinstance(given, Mapping) else [name for _, name in named(given)]
        if tenant not in tenants:
            hint = did_you_mean(tenant, tenants) or ("" if tenants else "list the tenants of the infrastructure")
            yield Wrong(("tenant",), describe(tenant), one_of(tenants, "a tenant of the infrastructure"), hint)

    def _pins(self, query: Document, network: Network | None) -> Iterator[Wrong]:
        """What is pinned must be there: operators and choices of the pipeline, pools that are open to the query."""
        content = query.content
        pipeline = next(
            (d for d in self.documents if d.kind == "Pipeline" and d.name == read(content, "pipeline")), None
        )
        if not isinstance(content, Query) or pipeline is None or not isinstance(pipeline.content, Pipeline):
            return
        operators = {operator.name: operator for operator in pipeline.content.operators}
        for position, pinned in enumerate(content.pin or ()):
            operator = operators.get(pinned.name)
            if operator is None:
                expected = one_of(list(operators), f"an operator of the pipeline {pipeline.name}")
                yield Wrong(("pin", position), describe(pinned.name), expected, did_you_mean(pinned.name, operators))
                continue
            for wrong in (*_pinned_knobs(pinned, operator), *_pinned_pool(pinned, operator, content, network)):
                yield wrong.below("pin", position)

    def _tiers(self, pipeline: Document, infrastructure: Document | None) -> Iterator[Wrong]:
        if infrastructure is None:
            return
        given = read(infrastructure.content, "tiers")
        tiers = [n for _, n in texts(given)] if given is not None else Infrastructure.model_fields["tiers"].default
        for position, operator in entries(read(pipeline.content, "operators")):
            for place, tier in texts(read(operator, "allowed_tiers")):
                if tiers and tier not in tiers:
                    path = ("operators", position, "allowed_tiers", place)
                    expected = one_of(tiers, "a tier of the infrastructure")
                    yield Wrong(path, describe(tier), expected, did_you_mean(tier, tiers))

    def _demands(self, pipeline: Document, network: Network | None) -> Iterator[Wrong]:
        if network is None:
            return
        for position, _ in entries(read(pipeline.content, "operators")):
            operator = pipeline.part(("operators", position), OperatorSpec)
            if operator is not None:
                for wrong in _unmet(operator, network.infrastructure):
                    yield wrong.below("operators", position)


def _accuracy(slo: AccuracySlo, metric: MetricSpec) -> Iterator[Wrong]:
    right = ">=" if metric.direction == "maximize" else "<="
    if slo.comparison != right:
        expected = f"{right}, since the metric {metric.name} is to be {metric.direction}d"
        yield Wrong(("slos", "accuracy", "comparison"), slo.comparison, expected)
    least, greatest = metric.range
    if not least <= slo.threshold <= greatest:
        expected = f"a score from {least:g} to {greatest:g}, the range of the metric {metric.name}"
        yield Wrong(("slos", "accuracy", "threshold"), f"{slo.threshold:g}", expected)


def _pinned_knobs(pinned: PinnedOperator, operator: OperatorSpec) -> Iterator[Wrong]:
    """Knobs that the operator does not have, and values that are none of their choices."""
    choices = {knob.name: knob.choices for knob in operator.knobs}
    for position, knob in enumerate(pinned.knobs):
        if knob.name not in choices:
            expected = one_of(list(choices), f"a knob of the operator {operator.name}")
            yield Wrong(("knobs", position), describe(knob.name), expected, did_you_mean(knob.name, choices))
        elif knob.value not in choices[knob.name]:
            expected = one_of(choices[knob.name], f"a choice of the knob {knob.name}")
            yield Wrong(("knobs", position, "value"), describe(knob.value), expected)


def _pinned_pool(
    pinned: PinnedOperator, operator: OperatorSpec, query: Query, network: Network | None
) -> Iterator[Wrong]:
    """A pool that is not there, not open to the query, or on a tier that the operator must not run on."""
    if network is None or pinned.pool is None or query.source not in {s.name for s in network.infrastructure.sites}:
        return
    tiers = operator.allowed_tiers
    there = {p.name: p.nodes for p in network.open_pools(query.source) if tiers is None or p.tier in tiers}
    allowed = [name for name, nodes in there.items() if nodes > 0]
    if pinned.pool in there and pinned.pool not in allowed:
        yield Wrong(("pool",), f"{describe(pinned.pool)}, which has no nodes", one_of(allowed, "a pool that has some"))
    elif pinned.pool not in allowed:
        expected = one_of(allowed, f"a pool that {operator.name} of a query from {query.source} may run in")
        yield Wrong(("pool",), describe(pinned.pool), expected, did_you_mean(pinned.pool, allowed))


def _unmet(operator: OperatorSpec, infrastructure: Infrastructure) -> Iterator[Wrong]:
    """Why no pool could hold one replica of `operator`, however many nodes it had; nothing where one could."""
    allowed = operator.allowed_tiers
    if allowed is not None and not set(allowed) <= set(infrastructure.tiers):
        return
    pools = [pool for pool in infrastructure.pools if allowed is None or pool.tier in allowed]
    if not pools:
        tiers = sorted({pool.tier for pool in infrastructure.pools}, key=infrastructure.tiers.index)
        expected = f"a tier that has a pool ({', '.join(tiers)})"
        yield Wrong(("allowed_tiers",), ", ".join(allowed or ()), expected)
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
        yield Wrong((need.field,), need.spoken, f"at most {need.show(need.most)}, the most that one node has{where}")
    if not unmet and not any(_holds(pool, operator) for pool in pools):
        together = ", ".join(need.spoken for need in needs if need.amount > 0)
        yield Wrong((), f"{together} together", f"what one node has{where}")


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
