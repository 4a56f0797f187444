"""Serving of plans: engines behind one protocol, routes, emulated links, and load tests.

The processes of replicas import this package: names are imported on first use, so that replicas start fast.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
