"""Attacks on the product: hostile input, odd environments, faults, overload, and hours of work."""

from __future__ import annotations

import signal
from collections.abc import Callable

from rich.console import Console

from benchmarks.hardening.control_socket import hostile_socket
from benchmarks.hardening.environment import environments
from benchmarks.hardening.faults import faults, scene_count
from benchmarks.hardening.files import files
from benchmarks.hardening.findings import AIMED_INPUTS
from benchmarks.hardening.hostile_http import hostile_http
from benchmarks.hardening.overload import overload
from benchmarks.hardening.ray_faults import ray_faults
from benchmarks.hardening.soak import soak
from benchmarks.hardening.specifications import specifications
from benchmarks.harness.benchmark import Benchmark, Option, Options, Part, PartResult
from benchmarks.serving.node_loss import lost_nodes


def _part(name: str, run: Callable[[Options, Console], PartResult], *options: str, quick: bool = True) -> Part:
    """Return a part that ends what it started when it is interrupted or ended, however it was started."""

    def interruptible(given: Options, console: Console) -> PartResult:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        return run(given, console)

    return Part(name, interruptible, (*options, "seed"), quick)


BENCHMARK = Benchmark(
    options=(
        Option("seed", 0, "seed of all inputs and faults"),
        Option("documents", AIMED_INPUTS["specifications"], "mutated specifications", quick=200),
        Option("files", AIMED_INPUTS["files"], "mutated files", quick=150),
        Option("requests", AIMED_INPUTS["http"], "hostile requests over HTTP", quick=150),
        Option("frames", AIMED_INPUTS["socket"], "hostile connections to the control socket", quick=150),
        Option("commands", AIMED_INPUTS["environment"], "commands in odd environments", quick=15),
        Option("overload_s", 120.0, "seconds of each load beyond the capacity", quick=3.0),
        Option("faults", 1_000, "maximum number of faults", quick=40),
        Option("fault_s", 2_100.0, "maximum seconds of faults", quick=12.0),
        Option("stop_s", 30.0, "seconds of the faults that last longest", quick=2.0),
        Option("scenes", scene_count(), "engines that faults strike side by side"),
        Option("ray_faults", 2, "faults of each kind over Ray"),
        Option("soak_s", 4_500.0, "seconds of real time of the soak", quick=10.0),
        Option("soak_hours", 4.0, "hours of simulated time of the soak", quick=0.25),
        Option("input", None, "one input of the part `files` to repeat with its output, such as plan/17", kind=str),
    ),
    parts=(
        _part("files", lambda o, c: files(o.files, o.seed, o.input, o.state / "files.jsonl", c), "files", "input"),
        _part(
            "specifications",
            lambda o, c: specifications(o.documents, o.seed, o.state / "specifications.jsonl", c),
            "documents",
        ),
        _part("http", lambda o, c: hostile_http(o.requests, o.seed, c), "requests"),
        _part("socket", lambda o, c: hostile_socket(o.frames, o.seed, c), "frames"),
        _part(
            "environment",
            lambda o, c: environments(o.commands, o.seed, o.state / "environment.jsonl", c),
            "commands",
        ),
        _part("overload", lambda o, c: overload(o.overload_s, o.seed, c), "overload_s"),
        _part("lost-node", lambda o, c: lost_nodes(1, c), quick=False),
        _part("ray", lambda o, c: ray_faults(o.ray_faults, o.seed, c), "ray_faults", quick=False),
        _part(
            "faults",
            lambda o, c: faults(o.faults, o.fault_s, o.stop_s, o.scenes, o.seed, o.state / "faults.jsonl", c),
            "faults",
            "fault_s",
            "stop_s",
            "scenes",
        ),
        _part("soak", lambda o, c: soak(o.soak_s, o.soak_hours, o.seed, c), "soak_s", "soak_hours"),
    ),
    note="Root, `unshare` and loop devices for read-only and full disks; root and iproute2 for partitions.",
)
