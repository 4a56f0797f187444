"""Import path of the examples, as the specification files in their folders set it."""

import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

for folder in (EXAMPLES, EXAMPLES / "meeting", EXAMPLES / "documents", EXAMPLES / "driving"):
    sys.path.append(str(folder))
