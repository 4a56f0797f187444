"""Running what was planned: engines behind one protocol, routes, links, and traffic to measure them with.

The processes of replicas import this package: names are looked up when they are used, so that replicas start at once.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
