"""Invalid options and arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer

from circinus.cli import _arguments
from circinus.cli.app import app
from circinus.cli.options import duration_option, factor_option, listen_address, price_option
from cli_runner import run_circinus


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (("apply", "--mode", "fake"), "--mode: found fake, expected real or replay"),
        (("apply", "--mode", "rael"), "found rael, expected real or replay; did you mean real?"),
        (("serve", "--metrics", "99999"), "--metrics: found '99999', expected [HOST:]PORT such as 9090"),
        (("load", "--items", "few"), "--items: found few, expected a whole number"),
        (
            ("load", "--duration", "30x"),
            "--duration: found 30x, expected a duration such as 150ms; units: us, ms, s, min, h",
        ),
        (("plan", "--churn-price", "0.01"), "found 0.01, expected a price such as $0.40/h"),
        (("events", "-fo", "yaml"), "-o: expected `-o json`"),
        (("status", "--output=yaml"), "--output: expected `--output json`"),
        (("simulate", "--load-factor", "two"), "found 'two', expected a number above 0"),
    ],
)
def test_it_is_said_as_all_faults_are(typed: tuple[str, ...], message: str, tmp_path: Path) -> None:
    run = run_circinus(*typed, cwd=tmp_path)
    assert run.returncode == 2
    words = " ".join(run.stderr.replace("│", " ").replace("'", "").split())
    assert message.replace("'", "") in words
    assert "Value error" not in words
    assert "Input should" not in words


@pytest.mark.parametrize(
    ("typed", "arguments"),
    [
        ("plan -o json shop -q", "-q plan --json shop"),
        ("plan --output=json -o json.json", "plan --json -o json.json"),
        ("explain --json json", "explain --json json"),
        ("validate -vv -- -o json -q", "-vv validate -- -o json -q"),
        ("-o json -q plan shop -- --json", "-q plan shop --json -- --json"),
        ("--json render kubernetes", "render kubernetes --json"),
        ("-o json -q --version", "-q --version"),
        ("--bogus --json", "--bogus"),
    ],
)
def test_options_of_the_group_and_the_output_format_are_on_either_side_of_a_verb(typed: str, arguments: str) -> None:
    as_json = "json" in typed.split("-- ")[0]  # arguments follow `--`
    assert _arguments(typed.split()) == (arguments.split(), as_json)


READ = {"DURATION": duration_option, "PRICE": price_option, "FACTOR": factor_option}


def _verbs() -> list[Any]:
    return [summary.load() for summary in typer.main.get_command(app).commands.values()]  # type: ignore[attr-defined]


def test_defaults_are_shown_as_they_would_be_typed() -> None:
    shown = 0
    for verb in _verbs():
        for option in verb.params:
            read = READ.get(str(option.metavar))
            if read is not None and option.default is not None:
                shown += 1
                assert isinstance(option.show_default, str), (verb.name, option.name)
                assert read(option.show_default) == float(option.default), (verb.name, option.name)
    assert shown == 11


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("9000", ("127.0.0.1", 9000)),
        ("gpu.example:9000", ("gpu.example", 9000)),
        ("[::1]:9000", ("::1", 9000)),
        ("http://localhost:9000", None),
        ("[::1:9000", None),
    ],
)
def test_an_address_is_host_and_port(typed: str, address: tuple[str, int] | None) -> None:
    if address is None:
        with pytest.raises(typer.BadParameter):
            listen_address("--http", typed)
    else:
        assert listen_address("--http", typed) == address


@pytest.mark.parametrize("zero", ["0", "0.0", "0s"])
def test_nothing_needs_no_unit(zero: str) -> None:
    assert duration_option(zero) == price_option(zero.removesuffix("s")) == 0


def test_a_duration_without_a_unit_is_one_of_seconds() -> None:
    assert duration_option("20") == duration_option("20s") == 20


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        (("render", "kubernetes", "nope.json"), 2),
        (("explain", "nope.json"), 2),
        (("plan", "--store", "nope.sqlite"), 2),
        (("plan", "--from", "nope.json"), 2),
        (("explain",), 1),  # nothing was typed wrongly, there only is no plan yet
    ],
)
def test_a_file_that_was_named_must_be_there(typed: tuple[str, ...], code: int, tmp_path: Path) -> None:
    assert run_circinus("init", cwd=tmp_path).returncode == 0
    run = run_circinus(*typed, cwd=tmp_path)
    assert run.returncode == code
    assert run.stderr.startswith(f"{typed[-1] if code == 2 else 'plan.json'}: no such file, expected")
