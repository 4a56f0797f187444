"""Delay between two network namespaces: a relay reads packets from one TUN device and writes them to another.

Many machines' kernels lack `netem`. Bandwidth is limited by a token bucket (`tc tbf`) at each device, not by the relay.

Run as `python -m benchmarks.testbeds.delay_relay NAME-A NAME-B ...`, with two names for each link. The devices are
created in the current namespace, may then be moved, and are removed when the process ends. It prints `ready` once all
exist, and then `done` for each input line `NAME SECONDS`, which sets the delay of packets that enter at a device, or
loses them with `inf`. It ends at the end of its input.
"""

from __future__ import annotations

import fcntl
import math
import os
import select
import struct
import sys
import time
from collections import deque
from collections.abc import Sequence

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_MAX_PACKET_BYTES = 65_536
_MAX_PACKETS = 64
"""Maximum number of packets read from one device before the next gets its turn."""


class DelayLine:
    """Queue of packets that leave in order after a delay; an infinite one loses them. The clock is passed in."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self._queue: deque[tuple[float, bytes]] = deque()

    def put(self, now_s: float, packet: bytes) -> None:
        """Delay a packet; packets stay in order even if the delay was reduced."""
        if math.isinf(self.delay_s):
            return
        due_s = now_s + self.delay_s
        if self._queue:
            due_s = max(due_s, self._queue[-1][0])
        self._queue.append((due_s, packet))

    def due(self, now_s: float) -> list[bytes]:
        """Remove and return the packets whose delay has passed."""
        packets = []
        while self._queue and self._queue[0][0] <= now_s:
            packets.append(self._queue.popleft()[1])
        return packets

    @property
    def next_s(self) -> float | None:
        """Due time of the next packet; None: the queue is empty."""
        return self._queue[0][0] if self._queue else None


def tun_device(name: str) -> int:
    """Return the file descriptor of a new TUN device, which reads and writes whole IP packets.

    Raises:
        OSError: /dev/net/tun does not exist, or creating devices is not allowed.
    """
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    except OSError:
        os.close(device)
        raise
    return device


class Relay:
    """Relay of packets between pairs of devices, with a `DelayLine` for each direction."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Create the devices.

        Args:
            pairs: names of the devices at the two ends of each link.
        """
        self.lines: dict[str, DelayLine] = {}
        """Name of the device where packets enter -> their delay line."""
        self._paths: dict[int, tuple[DelayLine, int]] = {}
        for pair in pairs:
            ends = [tun_device(name) for name in pair]
            for name, entry, exit_device in zip(pair, ends, reversed(ends), strict=True):
                self.lines[name] = DelayLine()
                self._paths[entry] = self.lines[name], exit_device

    def run(self, commands: int) -> None:
        """Relay packets until the end of the file `commands`."""
        text = b""
        while True:
            due_s = [line.next_s for line, _ in self._paths.values() if line.next_s is not None]
            wait_s = max(0.0, min(due_s) - time.monotonic()) if due_s else None
            # `select` instead of `epoll`, whose timeout has a resolution of 1 ms.
            ready, _, _ = select.select([*self._paths, commands], [], [], wait_s)
            for entry in ready:
                if entry != commands:
                    _read_packets(entry, self._paths[entry][0])
            now_s = time.monotonic()
            for line, exit_device in self._paths.values():
                for packet in line.due(now_s):
                    _write_packet(exit_device, packet)
            if commands in ready:
                received = os.read(commands, _MAX_PACKET_BYTES)
                if not received:
                    return
                *lines, text = (text + received).split(b"\n")
                for command in lines:
                    self._set_delay(command.decode())

    def _set_delay(self, command: str) -> None:
        name, seconds = command.split()
        self.lines[name].delay_s = float(seconds)
        print("done", flush=True)


def _read_packets(entry: int, line: DelayLine) -> None:
    for _ in range(_MAX_PACKETS):
        try:
            packet = os.read(entry, _MAX_PACKET_BYTES)
        except OSError:  # no more packets, or the device is down
            return
        line.put(time.monotonic(), packet)


def _write_packet(device: int, packet: bytes) -> None:
    try:
        os.write(device, packet)
    except OSError:  # the device is down or full, and networks may drop packets
        return


def main() -> None:
    """Relay between the devices named on the command line."""
    names = sys.argv[1:]
    relay = Relay(list(zip(names[::2], names[1::2], strict=True)))
    print("ready", flush=True)
    relay.run(sys.stdin.fileno())


if __name__ == "__main__":
    main()
