"""Array types of the numeric code."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]
"""Of 64 bits, or of 32 where the plan search saves memory."""
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
