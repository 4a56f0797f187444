"""What was measured, and how sure it is.

The process that holds an operator while it is measured imports this package: names are looked up when they are used, so
that its memory and the time it takes to load are the operator's own.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
