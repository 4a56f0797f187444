"""SLO-aware query planning for compound AI serving.

`Workspace` is the entry point: it profiles pipelines, plans all queries jointly, deploys the plan and measures it.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
