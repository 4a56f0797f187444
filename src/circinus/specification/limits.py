"""Maxima of specifications, beyond which a mistake is more likely than a purpose, and memory or time would run out.

`docs/specification.md` lists them. Quantities with units have theirs in `circinus.specification.units`.
"""

from __future__ import annotations

MAX_FILE_BYTES = 4 * 2**20
"""Size of a YAML file."""
MAX_ARRIVALS_BYTES = 64 * 2**20
"""Size of a CSV file of recorded arrivals."""
MAX_DOCUMENT_BYTES = 1024 * 2**20
"""Size of a plan file, of a report of a load test, and of a table of times."""
MAX_ARRIVALS = 1_000_000
"""Rows of a CSV file of recorded arrivals."""
MAX_YAML_VALUES = 50_000
"""Values and keys of a YAML file, with those of aliases counted each time. They take some seconds."""
MAX_LINES = 200_000
"""Lines of a YAML file."""
MAX_DEPTH = 100
"""Levels of nesting of a YAML document."""
MAX_SYNTAX_FAULTS = 20
"""Syntax problems of a file, after which the rest is not read."""
MAX_FAULTS = 200
"""Problems that one error lists."""
MAX_CANDIDATES = 200
"""Names among which a similar one is searched for a hint."""
MAX_TEXT = 255
"""Characters of a quantity, an SLO or a reference, and of names that are compared for a hint."""

MAX_INTEGER = 2**63 - 1
MAX_OPERATORS = 200
"""Operators of a pipeline."""
MAX_KNOBS = 50
"""Knobs of an operator."""
MAX_CHOICES = 1_000
"""Entries of a list of alternatives: choices of a knob, batch sizes, numbers of CPUs, branches, tiers."""
MAX_CONDITIONS = 16
"""Different conditions of the knobs of one operator, all combinations of which are counted."""
MAX_BATCH_SIZE = 10_000
MAX_ELEMENTS = 1_000_000
"""Elements that an operator may emit for each input."""
MAX_SITES = 5_000
"""Sites or pools of an infrastructure; a tenth of the links."""
MAX_NODES = 100_000
"""Nodes of a pool."""
MAX_UNITS = 1_000_000
"""CPUs or GPUs of a node or a replica."""
MAX_PRIORITY = 10**9
MIN_RISK = 1e-9
MAX_WEIGHT = 1e12
MAX_SPEED = 1e6
MIN_SPEED = 1e-6
