"""Rounding tolerances of the matching, named by what they round."""

REPLICA_TOLERANCE = 1e-6
"""Of fractional replicas, before they are rounded up."""
CAPACITY_TOLERANCE = 1e-6
"""Of the usage of capacities, as a share of a capacity."""
INTEGRALITY_TOLERANCE = 1e-6
"""Of the solver's integers."""
WEIGHT_TOLERANCE = 1e-9
"""Of sums of weights and of costs over queries, relative."""
COST_GAP_TOLERANCE = 1e-6
"""Of the gap at which a cost counts as proved optimal, relative."""
EQUAL_USD_PER_H = 1e-9
"""Difference below which costs count as equal."""
SHARE_TOLERANCE = 1e-9
"""Of a tenant's share."""
MIN_COST_BOUND_SHARE = 0.1
"""Of the cost: a lower bound below it says nothing, and texts leave it out."""
