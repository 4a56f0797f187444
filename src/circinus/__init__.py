"""SLO-aware query planning for compound AI serving.

`Workspace` is the entry point: it profiles pipelines, plans all queries jointly, deploys the plan and measures it.
"""

import os
import sys
from types import TracebackType


def _report_interrupt(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print no traceback if Ctrl-C comes while the command imports its first modules."""
    if kind is not KeyboardInterrupt:
        sys.__excepthook__(kind, error, trace)
        return
    os.write(2, b"interrupted\n")
    os._exit(130)


_called = sys.orig_argv[sys.orig_argv.index("-m") + 1 :] if sys.argv[:1] == ["-m"] else sys.argv
if os.path.basename(_called[0] if _called else "") == "circinus":  # it is the command
    sys.excepthook = _report_interrupt

import lazy_loader  # noqa: E402  (imports take milliseconds)

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
