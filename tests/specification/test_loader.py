"""Loading of readable and unreadable files and folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fault_cases import FAULTLESS

from circinus.errors import Diagnostic, SpecError
from circinus.specification import load_specification, parse_specification


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in zip(("a.yaml", "b.yml", "c.yaml"), FAULTLESS.split("---\n"), strict=True):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def _faults(*paths: Path) -> tuple[Diagnostic, ...]:
    with pytest.raises(SpecError) as raised:
        load_specification(paths)
    assert raised.value.exit_code == 2
    return raised.value.faults


def test_a_folder_stands_for_its_files(folder: Path) -> None:
    for other in ("notes.txt", ".pre-commit-config.yaml"):
        (folder / other).write_text("no: [yaml")
    (folder / "below").mkdir()
    (folder / "below" / "d.yaml").write_text("no: [yaml")
    specification = load_specification([folder])
    assert specification == parse_specification(FAULTLESS)
    assert specification.files == (folder / "a.yaml", folder / "b.yml", folder / "c.yaml")
    assert specification.module_paths == (folder,)


def test_files_are_read_once_and_their_folders_are_kept_in_order(folder: Path, tmp_path_factory: Path) -> None:
    elsewhere = folder / "queries"
    elsewhere.mkdir()
    (folder / "c.yaml").rename(elsewhere / "c.yaml")
    specification = load_specification([elsewhere, folder, folder / "a.yaml"])
    assert [file.name for file in specification.files] == ["c.yaml", "a.yaml", "b.yml"]
    assert specification.module_paths == (elsewhere, folder)


def test_a_byte_order_mark_is_passed_over(folder: Path) -> None:
    file = folder / "a.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert load_specification([folder]).infrastructure is not None


def test_faults_of_all_files_come_together(folder: Path) -> None:
    for name, old, new in (
        ("a.yaml", "cpus: 2", "cpus: 0"),
        ("b.yml", "after: denoise", "after: x"),
        ("c.yaml", "5/s", "5"),
    ):
        file = folder / name
        file.write_text(file.read_text().replace(old, new, 1))
    locations = [(Path(fault.file).name, fault.line) for fault in _faults(folder)]
    assert locations == [("a.yaml", 11), ("b.yml", 13), ("c.yaml", 8)]


def test_a_missing_file_hides_no_other_fault_and_makes_none(folder: Path) -> None:
    (folder / "b.yml").rename(folder / "b.yaml")
    missing, faulty = _faults(folder / "a.yaml", folder / "b.yml", folder / "c.yaml"), folder / "c.yaml"
    assert [str(fault) for fault in missing] == [
        f"{folder / 'b.yml'}: (file): found no such file, expected an existing file; did you mean b.yaml?"
    ]
    faulty.write_text(faulty.read_text().replace("rate: 5/s", "rate: 5"))
    assert [fault.field for fault in _faults(folder / "b.yml", faulty)] == ["(file)", "spec.rate"]


def test_a_file_that_cannot_be_read(folder: Path) -> None:
    (folder / "loop.yaml").symlink_to(folder / "loop.yaml")
    (fault,) = _faults(folder / "loop.yaml")
    assert (fault.file, fault.field) == (str(folder / "loop.yaml"), "(file)")
    assert fault.found.startswith("an unreadable path (Too many levels")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser can read every file")
def test_a_file_that_must_not_be_read(folder: Path) -> None:
    (folder / "a.yaml").chmod(0)
    (fault,) = _faults(folder / "a.yaml")
    assert "an unreadable path (Permission denied)" in str(fault)
    folder.chmod(0)
    (fault,) = _faults(folder)
    assert "an unreadable path (Permission denied)" in str(fault)
    folder.chmod(0o700)


def test_a_file_that_is_not_text(folder: Path) -> None:
    (folder / "a.yaml").write_bytes(b"apiVersion: circinus/v1\nkind: \xff\xfe")
    (fault,) = _faults(folder / "a.yaml")
    assert str(fault) == f"{folder / 'a.yaml'}:2: (file): found the byte 0xff, expected text in UTF-8"


def test_an_empty_folder_and_no_path_at_all(tmp_path: Path) -> None:
    (fault,) = _faults(tmp_path)
    assert fault.found == "a folder without YAML files"
    (fault,) = _faults()
    assert "at least one file or folder" in str(fault)


RAY_SERVICE = "apiVersion: ray.io/v1\nkind: RayService\nmetadata: {name: circinus}\n"


def test_what_is_plainly_of_others_in_a_folder_is_passed_over_and_named(folder: Path) -> None:
    (folder / "k.yaml").write_text("", encoding="utf-8")  # as a shell creates it before it runs the command
    (folder / "rendered.yaml").write_text(RAY_SERVICE, encoding="utf-8")
    (folder / "a.yaml").write_text((folder / "a.yaml").read_text() + "---\napiVersion: v1\nkind: Namespace\n")
    specification = load_specification([folder])
    assert specification == parse_specification(FAULTLESS)
    assert specification.files == (folder / "a.yaml", folder / "b.yml", folder / "c.yaml")
    first, empty, rendered = specification.skipped_documents
    assert "another tool's document (v1 Namespace)" in first
    assert empty == f"{folder / 'k.yaml'}: contains no document"
    assert rendered == f"{folder / 'rendered.yaml'}:1: another tool's document (ray.io/v1 RayService)"


@pytest.mark.parametrize("text", ["", RAY_SERVICE])
def test_what_was_named_must_be_a_specification(folder: Path, text: str) -> None:
    (folder / "k.yaml").write_text(text, encoding="utf-8")
    assert {fault.file for fault in _faults(folder, folder / "k.yaml")} == {str(folder / "k.yaml")}


@pytest.mark.parametrize("version", ["circinus/v2", "circinous/v1", "v1"])
def test_a_version_that_is_nearly_ours_is_a_fault_in_a_folder_too(folder: Path, version: str) -> None:
    file = folder / "c.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("circinus/v1", version), encoding="utf-8")
    assert [fault.field for fault in _faults(folder)] == ["apiVersion"]


def test_a_folder_of_others_files_alone_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "k.yaml").write_text(RAY_SERVICE, encoding="utf-8")
    (fault,) = _faults(tmp_path)
    assert fault.found == "a folder without Circinus documents"
