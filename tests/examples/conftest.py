"""Put the examples' folders on the path, as a specification beside them does."""

import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

for folder in (EXAMPLES, EXAMPLES / "meeting", EXAMPLES / "documents"):
    sys.path.append(str(folder))
