"""What the user writes: pipelines, infrastructure and queries, and the words of a plan."""

from circinus.spec.arrivals import AnyArrivals, BurstyArrivals, PeriodicArrivals, PoissonArrivals, RecordedArrivals
from circinus.spec.configurations import (
    configuration_count,
    configurations,
    has_knob_values,
    knob_values,
    knob_values_count,
    prefix_configuration,
)
from circinus.spec.document import load_specification, parse_specification
from circinus.spec.infrastructure import HardwareClass, Infrastructure, Link, Pool, Site, Tenant
from circinus.spec.network import DirectedLink, Network
from circinus.spec.pipeline import DatasetSpec, Knob, MetricSpec, OperatorSpec, Pipeline
from circinus.spec.plan import Allocation, Configuration, Deployment, KnobValues, QueryPlan
from circinus.spec.query import PinnedKnob, PinnedOperator, Query
from circinus.spec.slo import AccuracySlo, CostSlo, LatencySlo, Slos
from circinus.spec.specification import Specification

__all__ = [
    "AccuracySlo",
    "Allocation",
    "AnyArrivals",
    "BurstyArrivals",
    "Configuration",
    "CostSlo",
    "DatasetSpec",
    "Deployment",
    "DirectedLink",
    "HardwareClass",
    "Infrastructure",
    "Knob",
    "KnobValues",
    "LatencySlo",
    "Link",
    "MetricSpec",
    "Network",
    "OperatorSpec",
    "PeriodicArrivals",
    "PinnedKnob",
    "PinnedOperator",
    "Pipeline",
    "PoissonArrivals",
    "Pool",
    "Query",
    "QueryPlan",
    "RecordedArrivals",
    "Site",
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
]
