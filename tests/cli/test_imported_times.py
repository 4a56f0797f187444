"""Times of a table: imported, shown with their origin, and taken back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli_runner import answer, in_one_line, run_circinus

TABLE = "class,operator,method,batch_size,seconds,origin\nserver,correct,all,1,0.2,a paper\nserver,correct,all,4,0.3,\n"


def test_times_are_imported_shown_and_taken_back(application: Path) -> None:
    (application / "times.csv").write_text(TABLE, encoding="utf-8")
    times = answer("profile", "--import", "times.csv", cwd=application, kind="import")
    assert {(t["operator"], t["hardware_class"], t["batch_size"], t["batch_s"]) for t in times} == {
        ("correct", "server", 1, 0.2),
        ("correct", "server", 4, 0.3),
    }
    assert len(times) == 4  # for either effort
    (profile,) = answer("profile", "--show", cwd=application, kind="profile")
    listed = profile["imported"]
    assert sorted(map(json.dumps, listed)) == sorted(map(json.dumps, times))
    for measured in profile["configurations"]:
        speeds = measured["operators"]["correct"]["speeds"]
        if measured["configuration"]["correct"]["method"] == "all":
            assert (list(speeds), speeds["server"]["items"]) == (["server"], 0)
            assert [ratio["ratio"] for ratio in speeds["server"]["batch_ratios"]] == pytest.approx([1.0, 1.5])
        else:
            assert speeds == {}
    shown = in_one_line(run_circinus("profile", "--show", cwd=application).stdout)
    assert "4 times from times.csv" in shown
    assert "a paper" in shown
    taken = answer("forget", "--imported", "--operator", "correct", cwd=application, kind="forget")
    assert taken == {"taken_back": True, "imported": listed}
    assert answer("forget", "--imported", cwd=application, kind="forget") == {"taken_back": False, "imported": []}


def test_a_faulty_table_changes_nothing(application: Path) -> None:
    (application / "times.csv").write_text(f"{TABLE}server,correct,some,4,0.3,\n", encoding="utf-8")
    error = answer("profile", "--import", "times.csv", cwd=application, kind="error", code=1)
    assert (error["code"], error["location"]) == ("times.invalid_value", "times.csv:4: column method")
    assert answer("forget", "--imported", cwd=application, kind="forget")["imported"] == []
    assert run_circinus("profile", "--import", "times.csv", "--budget", "1s", cwd=application).returncode == 2
