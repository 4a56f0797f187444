"""How much memory processes take."""

from __future__ import annotations

from pathlib import Path


def resident_bytes(pid: int) -> int:
    """Resident memory of a process now; 0 when it has ended."""
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def peak_resident_bytes(pid: int) -> int:
    """Greatest resident memory of a process since it began its program.

    Linux tells it in /proc. `getrusage` does not do: a child inherits its parent's maximum through fork and exec.
    Elsewhere the resident memory of now is the best there is.
    """
    try:
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resident_bytes(pid)


def available_bytes() -> int:
    """Memory that new processes can be given without swapping."""
    import psutil

    return int(psutil.virtual_memory().available)
