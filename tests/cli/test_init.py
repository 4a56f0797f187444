"""`circinus init` writes everything or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from circinus.cli.init import init
from circinus.errors import CircinusError
from raised import raises_code


def _everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_failure_midway_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.txt").write_text("kept", encoding="utf-8")
    plain, opened = Path.open, []

    def fail_at_the_third(self: Path, *arguments: str, **keywords: str) -> object:
        if arguments and arguments[0] == "x":
            opened.append(self)
            if len(opened) == 3:
                raise OSError(28, "No space left on device", str(self))
        return plain(self, *arguments, **keywords)

    monkeypatch.setattr(Path, "open", fail_at_the_third)
    for target in (tmp_path, tmp_path / "deep" / "new"):
        opened.clear()
        with pytest.raises(OSError, match="No space left"):
            init(target)
        assert len(opened) == 3
        assert _everything(tmp_path) == ["mine.txt"]
    monkeypatch.undo()
    init(tmp_path)
    assert "pipeline.yaml" in _everything(tmp_path)


def test_a_write_that_fails_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A lone surrogate cannot be encoded: the file is open by then.
    monkeypatch.setattr(
        "circinus.cli.init._contents", lambda *_: [(Path("a.yaml"), "fine"), (Path("b/c.py"), "\udcff")]
    )
    with pytest.raises(UnicodeEncodeError):
        init(tmp_path / "new")
    assert _everything(tmp_path) == []


def test_what_is_there_is_named_and_kept(tmp_path: Path) -> None:
    (tmp_path / "queries.yaml").write_text("mine", encoding="utf-8")
    with raises_code(CircinusError, "init.files_present") as caught:
        init(tmp_path)
    assert "queries.yaml" in str(caught.value)
    assert _everything(tmp_path) == ["queries.yaml"]
    assert (tmp_path / "queries.yaml").read_text(encoding="utf-8") == "mine"
