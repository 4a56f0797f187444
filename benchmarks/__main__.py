"""Command line of the benchmarks: `python -m benchmarks NAME [--quick] [--out FILE] [...]`."""

from __future__ import annotations

import sys

from benchmarks.harness.registry import README, find_entry, listing, readme
from benchmarks.harness.results import write_whole


def main(arguments: list[str]) -> int:
    """List the benchmarks, write their README or run one; return the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(listing())
        return 0
    if arguments[0] == "--readme":
        write_whole(README, readme())
        return 0
    entry = find_entry(arguments[0])
    if entry is None:
        print(f"no benchmark is named {arguments[0]!r}. Choose one of:\n{listing()}", file=sys.stderr)
        return 2
    entry.run(arguments[1:])
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
