"""Measured profiles of pipelines, with the confidence bounds of their accuracies.

Names are loaded lazily: the worker process of a measured operator imports this package, and its memory and load time
are to be the operator's own.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
