"""Command line of the benchmarks: `python -m benchmarks NAME [--quick] [--out FILE] [...]`."""

from __future__ import annotations

import sys

from benchmarks.harness.registry import README, find_entry, listing, readme
from benchmarks.harness.results import write_whole

NOTHING_RAN = 3
"""Exit code where no part could run on this machine."""


def main(arguments: list[str]) -> int:
    """List the benchmarks, write their README or run one; return the exit code."""
    if not arguments:
        print(listing())
        return 0
    if arguments[0] in ("-h", "--help"):
        print(f"usage: python -m benchmarks NAME [--quick] [--only PART] [--help]\n\n{listing()}")
        return 0
    if arguments[0] == "--readme":
        write_whole(README, readme())
        return 0
    entry = find_entry(arguments[0])
    if entry is None:
        print(f"no benchmark is named {arguments[0]!r}. Choose one of:\n{listing()}", file=sys.stderr)
        return 2
    return 0 if entry.run(arguments[1:]) else NOTHING_RAN


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
