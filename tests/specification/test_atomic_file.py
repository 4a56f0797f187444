"""Files that are written as a whole, without following a link that another user of the folder could have placed."""

from __future__ import annotations

import os
from pathlib import Path

from circinus.specification.atomic_file import write_atomically


def test_links_are_replaced_rather_than_followed(tmp_path: Path) -> None:
    victim, plan = tmp_path / "victim", tmp_path / "plan.json"
    victim.write_text("precious")
    for name in (plan.name, f".{plan.name}.{os.getpid()}"):
        (tmp_path / name).symlink_to(victim)
    write_atomically(plan, "new")
    assert (victim.read_text(), plan.read_text(), plan.is_symlink()) == ("precious", "new", False)
    assert plan.stat().st_mode & 0o777 == 0o600


def test_a_replaced_file_keeps_its_mode(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.touch()
    plan.chmod(0o644)
    write_atomically(plan, "new")
    assert plan.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir()] == [plan.name]


def test_a_new_folder_is_closed_to_other_users(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        write_atomically(tmp_path / ".circinus" / "code" / "plan.json", "new")
    finally:
        os.umask(before)
    folder = tmp_path / ".circinus"
    assert [path.stat().st_mode & 0o777 for path in (folder, folder / "code")] == [0o700, 0o700]
