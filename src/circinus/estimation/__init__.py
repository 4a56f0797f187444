"""Estimates of plans: service, queueing, transfers, cost.

Names are loaded lazily: a plan file is read without the models that made its estimates.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
