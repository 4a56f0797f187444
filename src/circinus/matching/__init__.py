"""Matching of all queries: at most one plan for each query, within the capacities of pools and links.

Names are loaded lazily: a plan file is read without the solvers.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
