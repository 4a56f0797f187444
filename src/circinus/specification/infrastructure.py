"""Infrastructure: sites, tiers, pools of equal nodes, and links between sites."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, Strict, ValidationError, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from circinus.specification.base_model import Count, Flag, Name, Number, SpecModel
from circinus.specification.diagnostics import Expected, Issue, describe, issue_error, issues_of
from circinus.specification.document_validators import validate_topology
from circinus.specification.formatting import format_usd_per_h
from circinus.specification.limits import MAX_NODES, MAX_SITES, MAX_SPEED, MAX_UNITS, MIN_SPEED
from circinus.specification.shorthands import KeyedByName, OneOrMany, require_unique, sorted_unique
from circinus.specification.slo import Score
from circinus.specification.units import Bytes, BytesPerS, DurationS, PositiveBytes, UsdPerGb, UsdPerH


class Site(SpecModel):
    """Location of inputs or nodes. In YAML, a name suffices.

    Example:
        >>> import circinus as c
        >>> c.Site(name="office").name
        'office'
    """

    name: Name

    @classmethod
    def _spread(cls, given: Any, issues: list[Issue]) -> Any:
        return {"name": given} if isinstance(given, str) else given


LOCAL_CLASS = "local"
"""Hardware class of the profiling machine, whose speed is 1 by definition."""


def _bounds(value: Any) -> Any:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise issue_error(describe(value), "the lowest and the highest speed, such as [0.4, 0.5]")
    return value


class HardwareClass(SpecModel):
    """Kind of machine, with its speed relative to the profiling machine.

    Example:
        >>> import circinus as c
        >>> phone = c.HardwareClass(name="arm-phone", relative_speed=0.25, relative_speed_bounds=(0.2, 0.3))
        >>> phone.guaranteed_speed
        0.2
    """

    name: Name = Field(alias="class")
    """Name of the class; `local` is the profiling machine."""
    relative_speed: Annotated[Number, Field(ge=MIN_SPEED, le=MAX_SPEED)] | None = None
    """Divisor of the service times measured on the profiling machine. Required for all classes except `local`, as
    guarantees depend on it."""
    relative_speed_bounds: Annotated[tuple[Number, Number], BeforeValidator(_bounds)] | None = None
    """Certain bounds of an inexact speed. Guarantees use the lower bound."""

    @property
    def speed(self) -> float:
        """Best estimate of the relative speed."""
        return 1.0 if self.relative_speed is None else self.relative_speed

    @property
    def guaranteed_speed(self) -> float:
        """Lower bound of the relative speed, used for guarantees."""
        return self.speed if self.relative_speed_bounds is None else self.relative_speed_bounds[0]

    @classmethod
    def _cross_field_issues(cls, content: Any) -> Iterable[Issue]:
        if not isinstance(content, HardwareClass):
            return
        if content.name == LOCAL_CLASS and content.relative_speed not in (None, 1.0):
            found, expected = f"{content.relative_speed:g}", "1, since this is the profiling machine"
            yield Issue(("relative_speed",), found, expected, "give the class another name")
        elif content.relative_speed is None and content.name != LOCAL_CLASS:
            yield Issue(
                ("relative_speed",),
                "nothing",
                f"the speed of {content.name} relative to the profiling machine",
                f"measure it with `circinus profile --calibrate`, or call the class {LOCAL_CLASS}",
            )
        elif content.relative_speed_bounds is not None:
            lowest, highest = content.relative_speed_bounds
            if not 0 < lowest <= content.speed <= highest:
                expected = f"two numbers above 0 with the relative speed {content.speed:g} between them"
                yield Issue(("relative_speed_bounds",), f"[{lowest:g}, {highest:g}]", expected)


class Billing(StrEnum):
    """Payment of a pool: the share of its nodes that replicas take, or whole nodes."""

    SHARE = "share"
    NODE = "node"


class NodeRange(SpecModel):
    """Least and greatest number of nodes of an elastic pool."""

    min: Count = Field(default=0, ge=0, le=MAX_NODES)
    max: Count = Field(ge=0, le=MAX_NODES)


class Spot(SpecModel):
    """Price of nodes that the provider may take back, and how often it does."""

    price_usd_per_h: UsdPerH = Field(alias="price")
    """Price of one node per hour, instead of the pool's, and at most that if the pool has one."""
    interruptions_per_h: Number = Field(gt=0, le=MAX_SPEED)
    """Mean number of interruptions of one node per hour."""
    allowed_shortage: Score = Field(default=0.001, gt=0, lt=1)
    """Share of time in which interruptions may delay an operator's requests. It gets spare replicas to stay below."""


_NODES = "a whole number or `{min: 0, max: 4}`"
_MIN_NODES = "nodes.min"
"""Alias of the field that YAML writes within `nodes`."""
_COUNT_SCHEMA = {"type": "integer", "minimum": 0, "maximum": MAX_NODES}
_NODES_SCHEMA = {
    "anyOf": [
        _COUNT_SCHEMA,
        {
            "type": "object",
            "properties": {"min": _COUNT_SCHEMA, "max": _COUNT_SCHEMA},
            "required": ["max"],
            "additionalProperties": False,
        },
    ]
}


class Pool(SpecModel):
    """Set of equal nodes at one site and tier. All amounts apply to one node.

    Example:
        >>> import circinus as c
        >>> local = c.HardwareClass(name="local")
        >>> pool = c.Pool(name="phones", site="phone", tier="device", cpus=2, memory="4GiB", hardware=local)
        >>> pool.is_private()
        True
        >>> vms = c.Pool(name="vms", site="vms", tier="cloud", nodes={"max": 9}, cpus=8, memory="1GiB", hardware=local)
        >>> vms.base_nodes, vms.nodes
        (0, 9)
    """

    WRITTEN_ELSEWHERE = frozenset({_MIN_NODES})

    name: Name
    site: Name
    """Site of the nodes."""
    tier: Name
    """Tier of the nodes."""
    nodes: Annotated[int, Strict(), Expected(_NODES), WithJsonSchema(_NODES_SCHEMA)] = Field(
        default=1, ge=0, le=MAX_NODES
    )
    """Number of nodes, or `min` (default 0) and `max` of them: plans then choose how many run."""
    min_nodes: SkipJsonSchema[Count | None] = Field(default=None, alias=_MIN_NODES)
    """Least number of nodes, if plans choose how many run, up to `nodes`; None: exactly `nodes` run."""
    cpus: Number = Field(gt=0, le=MAX_UNITS)
    """CPUs of one node."""
    memory_bytes: PositiveBytes = Field(alias="memory")
    """Memory of one node."""
    gpus: Number = Field(default=0.0, ge=0, le=MAX_UNITS)
    """GPUs of one node."""
    gpu_memory_bytes: Bytes = Field(default=0.0, alias="gpu_memory")
    """GPU memory of one node."""
    hardware: HardwareClass
    price_usd_per_h: UsdPerH = Field(default=0.0, alias="price")
    """Price of one node per hour."""
    billing: Billing = Billing.SHARE
    """`share`: a replica costs its largest share of a node's resources; `node`: every node that runs is paid whole."""
    node_startup_s: DurationS = Field(default=0.0, alias="node_startup")
    """Time from requesting a further node until it accepts replicas."""
    spot: Spot | None = None
    """Spot price and interruptions of the nodes; None if they stay."""
    headroom: Score = Field(default=0.0, ge=0, lt=1)
    """Share of CPUs, memory and GPUs of the pool that plans leave unused."""
    private: Flag | None = None
    """True if the pool is reserved for queries from its own site; default true on the tier `device`, else false."""

    @property
    def amounts(self) -> tuple[float, float, float, float]:
        """CPUs, memory, GPUs and GPU memory of one node."""
        return self.cpus, self.memory_bytes, self.gpus, self.gpu_memory_bytes

    @property
    def base_nodes(self) -> int:
        """Number of nodes that always run."""
        return self.nodes if self.min_nodes is None else min(self.min_nodes, self.nodes)

    @property
    def is_elastic(self) -> bool:
        """True if plans choose how many nodes run."""
        return self.base_nodes < self.nodes

    @property
    def paid_usd_per_h(self) -> float:
        """Price of one node per hour: the spot price, if there is one."""
        return self.price_usd_per_h if self.spot is None else self.spot.price_usd_per_h

    @property
    def bills_nodes(self) -> bool:
        """True if nodes are paid whole."""
        return self.billing is Billing.NODE

    def reserved_share(self, amounts: Sequence[float]) -> float:
        """Return the share of a node's price that a replica with these amounts reserves.

        It is the largest share of a resource or, of nodes paid whole, the mean share of the resources that a node has:
        the replicas on a node never reserve more than its price then, and divide it by what each reserves.
        """
        shares = [needed / of_node for needed, of_node in zip(amounts, self.amounts, strict=True) if of_node]
        return sum(shares) / len(shares) if self.bills_nodes else max(shares)

    @classmethod
    def _spread(cls, given: Any, issues: list[Issue]) -> Any:
        nodes = given.get("nodes") if isinstance(given, Mapping) else None
        if not isinstance(nodes, Mapping):
            return given
        try:
            limits = NodeRange.model_validate(nodes)
        except ValidationError as error:
            issues += [issue.with_prefix("nodes") for issue in issues_of(error, NodeRange, nodes)]
            limits = NodeRange(max=1)
        return {**given, "nodes": limits.max, _MIN_NODES: limits.min}

    @classmethod
    def _cross_field_issues(cls, content: Any) -> Iterable[Issue]:
        if not isinstance(content, Pool):
            return
        if content.spot is not None and not content.node_startup_s:
            expected = "the time until another node replaces an interrupted one, such as 90s"
            yield Issue(("node_startup",), "no time", expected, "spare replicas are counted by it")
        if content.spot is not None and 0.0 < content.price_usd_per_h < content.spot.price_usd_per_h:
            expected = f"at most {format_usd_per_h(content.price_usd_per_h)}, the pool's price"
            hint = "lower it, or remove `spot`: such nodes are interrupted and save nothing"
            yield Issue(("spot", "price"), format_usd_per_h(content.spot.price_usd_per_h), expected, hint)
        if (content.min_nodes or 0) > content.nodes:
            expected = f"at most {content.nodes}, the greatest number of nodes"
            yield Issue(("nodes", "min"), str(content.min_nodes), expected)

    def is_private(self) -> bool:
        """Return whether the pool is reserved for queries from its own site."""
        return self.tier == "device" if self.private is None else self.private


AllowedTraffic = Literal["all", "results", "none"]


class Link(SpecModel):
    """Network path between two sites with one bandwidth per direction, shared by all traffic between them.

    Example:
        >>> import circinus as c
        >>> c.Link(source="phone", target="office", bandwidth="40Mbit/s", round_trip="20ms").bandwidth_bytes_per_s
        5000000.0
    """

    source: Name = Field(alias="from")
    """First site."""
    target: Name = Field(alias="to")
    """Second site."""
    bandwidth_bytes_per_s: BytesPerS = Field(alias="bandwidth")
    """Bandwidth from the first to the second site."""
    reverse_bandwidth_bytes_per_s: BytesPerS | None = Field(default=None, alias="reverse_bandwidth")
    """Bandwidth from the second to the first site; default `bandwidth`."""
    round_trip_s: DurationS = Field(default=0.0, alias="round_trip")
    """Round-trip time of a small packet."""
    price_usd_per_gb: UsdPerGb = Field(default=0.0, alias="price")
    """Price of traffic from the first to the second site."""
    reverse_price_usd_per_gb: UsdPerGb | None = Field(default=None, alias="reverse_price")
    """Price of traffic from the second to the first site; default `price`."""
    allowed_traffic: AllowedTraffic = "all"
    """Values that may cross from the first to the second site: all, only results of pipelines, or none."""
    reverse_allowed_traffic: AllowedTraffic = "all"
    """Values that may cross from the second to the first site."""


class Tenant(SpecModel):
    """Tenant of the infrastructure, with its guaranteed share.

    Example:
        >>> import circinus as c
        >>> c.Tenant(name="ward", at_least="30%").at_least
        0.3
    """

    name: Name
    at_least: Score = Field(default=0.0, ge=0, le=1)
    """Guaranteed share of the weight of the tenant's queries, which is served first, if feasible."""


class Infrastructure(SpecModel):
    """Hardware and network that plans may use.

    Example:
        >>> import circinus as c
        >>> local = c.HardwareClass(name="local")
        >>> pool = c.Pool(name="servers", site="office", tier="edge", nodes=3, cpus=8, memory="32GiB", hardware=local)
        >>> c.Infrastructure(name="home", sites=["office"], pools=[pool]).pool("servers").nodes
        3
    """

    WRITTEN_ELSEWHERE = frozenset({"name"})

    name: Name
    tiers: Annotated[tuple[Name, ...], AfterValidator(require_unique("tier")), OneOrMany()] = Field(
        default=("device", "edge", "cloud"), min_length=1
    )
    """Tiers, from nearest to farthest from the inputs."""
    sites: tuple[Site, ...] = Field(min_length=1, max_length=MAX_SITES)
    """Locations of inputs and nodes."""
    pools: tuple[Pool, ...] = Field(min_length=1, max_length=MAX_SITES)
    """Sets of equal nodes."""
    links: tuple[Link, ...] = Field(default=(), max_length=10 * MAX_SITES)
    """Network between the sites. Transfers take the path with the shortest round trip that allows them."""
    utilization_targets: Annotated[
        tuple[Annotated[Score, Field(gt=0, lt=1)], ...], AfterValidator(sorted_unique("target")), OneOrMany()
    ] = Field(default=(0.4, 0.7), min_length=1)
    """Utilizations that deployments are sized for, ascending; plans choose among them."""
    max_utilization: Score = Field(default=0.8, gt=0, lt=1)
    """Maximum utilization of a deployment, if above all targets: targets are raised up to it where all SLOs hold at the
    load of all queries together."""
    usable_link_share: Score = Field(default=0.7, gt=0, lt=1)
    """Share of a link's bandwidth that all plans together may use; latencies are promised at this utilization."""
    tenants: Annotated[tuple[Tenant, ...], KeyedByName(main="at_least")] = ()
    """Tenants of the infrastructure; in YAML a mapping from the tenant's name to its guaranteed share, or a list."""

    @property
    def utilization_limit(self) -> float:
        """Maximum utilization of any deployment."""
        return max(*self.utilization_targets, self.max_utilization)

    @classmethod
    def _cross_field_issues(cls, content: Any) -> Iterable[Issue]:
        return validate_topology(content, default_tiers=cls.model_fields["tiers"].default)

    def pool(self, name: str) -> Pool:
        """Return the pool `name`, or raise KeyError."""
        for pool in self.pools:
            if pool.name == name:
                return pool
        raise KeyError(name)
