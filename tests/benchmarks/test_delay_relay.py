"""Delays of the packet relay."""

from __future__ import annotations

from benchmarks.testbeds.delay_relay import DelayLine


def test_a_packet_comes_out_after_the_delay_and_not_before() -> None:
    line = DelayLine(0.02)
    line.put(10.0, b"first")
    line.put(10.01, b"second")
    assert line.next_s == 10.02
    assert line.due(10.0199) == []
    assert line.due(10.02) == [b"first"]
    assert line.next_s == 10.01 + 0.02
    assert line.due(11.0) == [b"second"]
    assert line.next_s is None


def test_without_a_delay_packets_pass_at_once_and_in_order() -> None:
    line = DelayLine()
    line.put(1.0, b"first")
    line.put(1.0, b"second")
    assert line.due(1.0) == [b"first", b"second"]


def test_no_packet_overtakes_another_when_the_delay_becomes_less() -> None:
    line = DelayLine(1.0)
    line.put(0.0, b"slow")
    line.delay_s = 0.0
    line.put(0.5, b"quick")
    assert line.due(0.5) == []
    assert line.due(1.0) == [b"slow", b"quick"]
