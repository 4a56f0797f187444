"""Attacks on the product: hostile input, odd environments, faults, overload, and hours of work."""

from __future__ import annotations

from benchmarks.hardening.control_socket import hostile_socket
from benchmarks.hardening.environment import environments
from benchmarks.hardening.faults import faults, scene_count
from benchmarks.hardening.files import files
from benchmarks.hardening.hostile_http import hostile_http
from benchmarks.hardening.overload import overload
from benchmarks.hardening.soak import soak
from benchmarks.hardening.specifications import specifications
from benchmarks.harness.benchmark import Benchmark, Option, Part

BENCHMARK = Benchmark(
    options=(
        Option("seed", 0, "seed of all inputs and faults"),
        Option("documents", 7_000, "mutated specifications", quick=400),
        Option("files", 7_000, "mutated files", quick=300),
        Option("requests", 3_000, "hostile requests over HTTP", quick=300),
        Option("frames", 2_500, "hostile connections to the control socket", quick=300),
        Option("commands", 400, "commands in odd environments", quick=30),
        Option("overload_s", 60.0, "seconds of each load beyond the capacity", quick=4.0),
        Option("fault_s", 360.0, "seconds of faults", quick=30.0),
        Option("stop_s", 30.0, "seconds of a fault that lasts", quick=2.0),
        Option("scenes", scene_count(), "engines that faults strike side by side"),
        Option("soak_s", 240.0, "seconds of real time of the soak", quick=20.0),
        Option("soak_hours", 4.0, "hours of simulated time of the soak", quick=0.25),
        Option("input", None, "one input of the part `files` to repeat with its output, such as plan/17", kind=str),
    ),
    parts=(
        Part("files", lambda o, console: files(o.files, o.seed, o.input, console), ("files", "seed", "input")),
        Part("specifications", lambda o, console: specifications(o.documents, o.seed, console), ("documents", "seed")),
        Part("http", lambda o, console: hostile_http(o.requests, o.seed, console), ("requests", "seed")),
        Part("socket", lambda o, console: hostile_socket(o.frames, o.seed, console), ("frames", "seed")),
        Part("environment", lambda o, console: environments(o.commands, o.seed, console), ("commands", "seed")),
        Part("overload", lambda o, console: overload(o.overload_s, o.seed, console), ("overload_s", "seed")),
        Part(
            "faults",
            lambda o, console: faults(o.fault_s, o.stop_s, o.scenes, o.seed, console),
            ("fault_s", "stop_s", "scenes", "seed"),
        ),
        Part(
            "soak", lambda o, console: soak(o.soak_s, o.soak_hours, o.seed, console), ("soak_s", "soak_hours", "seed")
        ),
    ),
    note="Root and `unshare` for read-only and full disks.",
)
