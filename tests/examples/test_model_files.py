"""Model files of the examples: location, verification, atomic joining, and their documentation."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import ModuleType

import documents.model_files
import documents.models
import driving.model_files
import driving.models
import meeting.model_files
import meeting.models
import models_table
import pytest

from circinus.errors import OperatorError

PARTS = (b"first half, ", b"second half")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "a_package_of_weights"
    folder.mkdir()
    (folder / "__init__.py").touch()
    for number, content in enumerate(PARTS, start=1):
        (folder / f"model.bin.part{number}").write_bytes(content)
    (folder / "config.json").write_text("{}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _split_model(joined_sha256: str = _sha256(b"".join(PARTS))) -> meeting.model_files.Model:
    names = ("model.bin.part1", "model.bin.part2", "config.json")
    files = tuple(
        meeting.model_files.ModelFile(f"a_package_of_weights/{name}", _sha256(content))
        for name, content in zip(names, (*PARTS, b"{}"), strict=True)
    )
    joined = meeting.model_files.ModelFile("model.bin", joined_sha256)
    return meeting.model_files.Model("split", "test", "MIT", "us", "a-package", "1.0", files, joined)


@pytest.mark.parametrize("example", [meeting, documents, driving])
def test_installed_files_are_those_the_examples_were_written_for(example: ModuleType) -> None:
    for model in example.models.MODELS:
        for file in model.files:
            example.model_files.check(model, file, example.model_files.locate(model, file))


@pytest.mark.parametrize("files", [meeting.model_files, documents.model_files, driving.model_files])
def test_another_file_is_refused_by_name_and_hash(files: ModuleType, package: Path) -> None:
    file = files.ModelFile("a_package_of_weights/config.json", "0" * 64)
    model = files.Model("small", "test", "MIT", "us", "a-package", "1.0", (file,))
    with pytest.raises(OperatorError) as refused:
        files.check(model, file, files.locate(model, file))
    for part in ("small", str(package / "config.json"), _sha256(b"{}"), "0" * 64, "Reinstall a-package 1.0"):
        assert part in str(refused.value)


@pytest.mark.parametrize("files", [meeting.model_files, documents.model_files, driving.model_files])
@pytest.mark.parametrize("name", ["no_such_package/model.bin", "a_package_of_weights/no_such_file"])
def test_missing_files_are_named_with_their_package(files: ModuleType, name: str, package: Path) -> None:
    file = files.ModelFile(name, "0" * 64)
    model = files.Model("small", "test", "MIT", "us", "a-package", "1.0", (file,))
    with pytest.raises(OperatorError, match=r"a-package 1\.0 is not installed\. Install the extra `examples`"):
        files.locate(model, file)


def test_copies_of_the_code_are_equal() -> None:
    """Each example is a folder to copy, so it has its own."""
    copies = [
        Path(files.__file__).read_text(encoding="utf-8") for files in (documents.model_files, driving.model_files)
    ]
    assert copies[0] == copies[1]


def test_parts_are_joined_once(package: Path) -> None:
    folder = meeting.model_files.model_folder(_split_model())
    joined = folder / "model.bin"
    assert joined.read_bytes() == b"".join(PARTS)
    assert (folder / "config.json").read_text() == "{}"
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]
    written_ns = joined.stat().st_mtime_ns
    meeting.model_files.model_folder.cache_clear()
    assert meeting.model_files.model_folder(_split_model()) == folder
    assert joined.stat().st_mtime_ns == written_ns


def test_parts_that_do_not_fit_leave_nothing(package: Path) -> None:
    with pytest.raises(OperatorError, match="expected " + "0" * 64):
        meeting.model_files.model_folder(_split_model("0" * 64))
    assert not list((package.parent / "cache").rglob("*.bin"))


def test_a_joined_file_that_was_changed_is_refused(package: Path) -> None:
    folder = meeting.model_files.model_folder(_split_model())
    (folder / "model.bin").write_bytes(b"something else")
    meeting.model_files.model_folder.cache_clear()
    with pytest.raises(OperatorError, match="SHA-256"):
        meeting.model_files.model_folder(_split_model())


@pytest.fixture(autouse=True)
def _forget_folders() -> None:
    meeting.model_files.model_folder.cache_clear()


def test_the_documentation_says_what_the_code_uses() -> None:
    expected = models_table.document_with(models_table.tables())
    assert models_table.DOCUMENT.read_text(encoding="utf-8") == expected, "run python examples/models_table.py --write"
    assert "GPL-3.0" in expected
