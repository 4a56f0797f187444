"""Tables of relative speeds on other hardware."""

from __future__ import annotations

from dataclasses import replace

from printed import printed

from circinus.profiling import FailedConfiguration, HardwareClassReport, Machine, MeasuredSpeed, Speeds
from circinus.reporting.profile_table import hardware_class_lines, profile_table
from circinus.statistics.interval import Interval
from planning_instances import measured_there, random_instance

ARM = Machine("ARM CPU", 4)


def test_a_profile_tells_the_speeds_that_were_measured() -> None:
    profile = random_instance(0).profile
    assert "Speed on other hardware" not in printed(profile_table(profile, "maximize"))
    configuration = profile.configurations[0]
    first, *rest = configuration.operators
    measured = replace(
        configuration.operators[first], speeds=Speeds({"arm": MeasuredSpeed(Interval(0.25, 0.2, 0.3), 24)})
    )
    changed = replace(configuration, operators={**configuration.operators, first: measured})
    shown = printed(profile_table(replace(profile, configurations=(changed,)), "maximize"))
    assert "Speed on other hardware (bounds)" in shown
    assert "0.25 (0.2 to 0.3)" in shown
    assert shown.count("declared") == len(rest)


def test_every_class_that_was_measured_has_a_column() -> None:
    instance = measured_there(random_instance(3), factor=0.5)
    shown = printed(profile_table(instance.profile, "maximize"))
    assert all(pool.hardware.name in shown for pool in instance.network.infrastructure.pools)
    assert "declared" not in shown


def test_what_was_measured_where_and_what_is_missing() -> None:
    configuration = random_instance(0).profile.configurations[0].configuration
    failed = FailedConfiguration(configuration, None, "no such instruction")
    lines = hardware_class_lines(
        (
            HardwareClassReport("arm", ARM, 1.5),
            HardwareClassReport("gpu", None),
            HardwareClassReport("old", ARM, 0.5, 2, (failed,)),
        )
    )
    assert [str(line) for line in lines] == [
        "arm: 1.5 s of processing on ARM CPU, 4 cores",
        "gpu: not measured; its declared speed applies",
        "old: 500 ms of processing on ARM CPU, 4 cores; declared speeds apply to 2 operators with their knobs",
        f"old: {configuration} failed: no such instruction",
    ]
