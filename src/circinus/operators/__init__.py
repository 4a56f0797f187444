"""Operators of pipelines: protocol, decorator, and resolution of references to code."""

from circinus.operators.decorator import operator
from circinus.operators.protocol import (
    Branch,
    DatasetFunction,
    Emission,
    Item,
    Metric,
    Operator,
    OperatorFactory,
    operator_of,
)
from circinus.operators.registry import ENTRY_POINT_GROUP, resolve, resolve_operator
from circinus.operators.source_version import source_version

__all__ = [
    "ENTRY_POINT_GROUP",
    "Branch",
    "DatasetFunction",
    "Emission",
    "Item",
    "Metric",
    "Operator",
    "OperatorFactory",
    "operator",
    "operator_of",
    "resolve",
    "resolve_operator",
    "source_version",
]
