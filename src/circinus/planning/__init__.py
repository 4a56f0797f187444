"""Planning of single queries: Pareto frontiers over configurations, placements and allocations.

Names are loaded lazily: a plan file is read without the search.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
