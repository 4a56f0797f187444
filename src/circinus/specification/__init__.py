"""Specification written by the user (pipelines, infrastructure, queries), and the types of a plan."""

from circinus.specification.arrivals import (
    AnyArrivals,
    BurstyArrivals,
    PeriodicArrivals,
    PoissonArrivals,
    RecordedArrivals,
)
from circinus.specification.configurations import (
    configuration_count,
    configurations,
    has_knob_values,
    knob_values,
    knob_values_count,
    prefix_configuration,
)
from circinus.specification.infrastructure import (
    Billing,
    HardwareClass,
    Infrastructure,
    Link,
    Pool,
    Site,
    Tenant,
)
from circinus.specification.loader import load_specification, parse_specification
from circinus.specification.network import DirectedLink, Network
from circinus.specification.pipeline import (
    DatasetSpec,
    GpuMemoryCase,
    Knob,
    MetricSpec,
    OperatorSpec,
    Pipeline,
    Population,
)
from circinus.specification.plan import (
    Allocation,
    Configuration,
    Deployment,
    KnobValues,
    PlanShare,
    QueryPlan,
    ReplicaKey,
    replica_keys,
)
from circinus.specification.query import LatePolicy, PinnedKnob, PinnedOperator, Query
from circinus.specification.slo import AccuracySlo, CostSlo, LatencySlo, Slo, SloKind, Slos
from circinus.specification.specification import Specification

__all__ = [
    "AccuracySlo",
    "Allocation",
    "AnyArrivals",
    "Billing",
    "BurstyArrivals",
    "Configuration",
    "CostSlo",
    "DatasetSpec",
    "Deployment",
    "DirectedLink",
    "GpuMemoryCase",
    "HardwareClass",
    "Infrastructure",
    "Knob",
    "KnobValues",
    "LatePolicy",
    "LatencySlo",
    "Link",
    "MetricSpec",
    "Network",
    "OperatorSpec",
    "PeriodicArrivals",
    "PinnedKnob",
    "PinnedOperator",
    "Pipeline",
    "PlanShare",
    "PoissonArrivals",
    "Pool",
    "Population",
    "Query",
    "QueryPlan",
    "RecordedArrivals",
    "ReplicaKey",
    "Site",
    "Slo",
    "SloKind",
    "Slos",
    "Specification",
    "Tenant",
    "configuration_count",
    "configurations",
    "has_knob_values",
    "knob_values",
    "knob_values_count",
    "load_specification",
    "parse_specification",
    "prefix_configuration",
    "replica_keys",
]
