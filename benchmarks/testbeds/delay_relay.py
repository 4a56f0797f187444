"""Delay between two network namespaces: packets are read from one TUN device, held back, and written to another.

The kernel's own way, `netem`, is missing from many machines' kernels. Bandwidth is not this program's business: a
token bucket (`tc tbf`) at each device lets packets come here no faster than the link is.

Run as `python -m benchmarks.testbeds.delay_relay NAME-A NAME-B ...`, with two names for each link. The devices are
made in the namespace that this is started in, wait to be moved, and end with this process. It says `ready` once all
are there, then `done` to each line `NAME SECONDS` of its input, which tells how long packets that enter at a device
are held back. It ends when its input does.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import sys
import time
from collections import deque
from collections.abc import Sequence

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_LARGEST = 65_536
_AT_ONCE = 64
"""Packets that are taken from one device before another gets its turn."""


class DelayLine:
    """Packets in order, each of which comes out so long after it went in. Pure: told the time."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self._held: deque[tuple[float, bytes]] = deque()

    def put(self, now_s: float, packet: bytes) -> None:
        """Hold a packet back; never overtakes one that went in before, should the delay have become less."""
        due_s = now_s + self.delay_s
        if self._held:
            due_s = max(due_s, self._held[-1][0])
        self._held.append((due_s, packet))

    def due(self, now_s: float) -> list[bytes]:
        """Take out what was held back for long enough."""
        found = []
        while self._held and self._held[0][0] <= now_s:
            found.append(self._held.popleft()[1])
        return found

    @property
    def next_s(self) -> float | None:
        """When the next packet is due; None: there is none."""
        return self._held[0][0] if self._held else None


def tun_device(name: str) -> int:
    """File descriptor of a new TUN device, one whole IP packet a read or write.

    Raises:
        OSError: there is no /dev/net/tun, or making devices is not allowed.
    """
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    except OSError:
        os.close(device)
        raise
    return device


class Relay:
    """Carries packets between pairs of devices, each direction over a `DelayLine`."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Make the devices.

        Args:
            pairs: names of the devices at the two ends of each link.
        """
        self.lines: dict[str, DelayLine] = {}
        """Name of the device that packets enter at -> where they are held back."""
        self._ways: dict[int, tuple[DelayLine, int]] = {}
        for pair in pairs:
            ends = [tun_device(name) for name in pair]
            for name, entry, leaving in zip(pair, ends, reversed(ends), strict=True):
                self.lines[name] = DelayLine()
                self._ways[entry] = self.lines[name], leaving

    def run(self, commands: int) -> None:
        """Carry packets until the file `commands` ends."""
        text = b""
        while True:
            dues = [line.next_s for line, _ in self._ways.values() if line.next_s is not None]
            wait_s = max(0.0, min(dues) - time.monotonic()) if dues else None
            # `select` and not `epoll`: that one waits for whole milliseconds.
            ready, _, _ = select.select([*self._ways, commands], [], [], wait_s)
            for entry in ready:
                if entry != commands:
                    _take(entry, self._ways[entry][0])
            now_s = time.monotonic()
            for line, leaving in self._ways.values():
                for packet in line.due(now_s):
                    _give(leaving, packet)
            if commands in ready:
                said = os.read(commands, _LARGEST)
                if not said:
                    return
                *whole, text = (text + said).split(b"\n")
                for command in whole:
                    self._obey(command.decode())

    def _obey(self, command: str) -> None:
        name, seconds = command.split()
        self.lines[name].delay_s = float(seconds)
        print("done", flush=True)


def _take(entry: int, line: DelayLine) -> None:
    for _ in range(_AT_ONCE):
        try:
            packet = os.read(entry, _LARGEST)
        except OSError:  # nothing more, or the device is down
            return
        line.put(time.monotonic(), packet)


def _give(leaving: int, packet: bytes) -> None:
    try:
        os.write(leaving, packet)
    except OSError:  # the device is down, or full: a network loses packets
        return


def main() -> None:
    """Relay between the devices that are named."""
    names = sys.argv[1:]
    relay = Relay(list(zip(names[::2], names[1::2], strict=True)))
    print("ready", flush=True)
    relay.run(sys.stdin.fileno())


if __name__ == "__main__":
    main()
