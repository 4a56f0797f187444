"""Code of plan files: which files are compared, and whose code may run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import circinus as c
from circinus.matching.inline_specification import InlineSpecification
from circinus.matching.plan_code import changed_code, code_files, code_seal, foreign_code
from circinus.matching.plan_set import Matching, PlanFile
from circinus.operators import resolve, resolve_operator
from circinus.operators.source_version import source_version
from cli_runner import as_a_new_process

CODE = """
import circinus as c

@c.operator
def by_file(text): return text

@c.operator(version="3")
def declared(text): return text

def equal(output, truth): return 1.0
def items(): return []
"""


@dataclass(frozen=True)
class Application:
    """A specification in a folder, and a plan file for it in the folder above."""

    folder: Path
    specification: c.Specification

    def plan_file(self, folder: Path, inline: InlineSpecification | None = None, seal: str = "") -> PlanFile:
        """Return a plan file that serves no query, as if it was read from `folder`."""
        operators = {uses: resolve_operator(uses, [self.folder]).version for uses in ("shop:by_file", "shop:declared")}
        others = {uses: source_version(resolve(uses, [self.folder])) for uses in ("shop:equal", "shop:items")}
        versions = {**operators, **others, "pathlib:Path": "installed", "no_such_module:f": "1"}
        return PlanFile(
            parts={},
            files=(),
            code_versions=versions,
            code_files=code_files(versions, self.specification, folder),
            seed=0,
            profile_store="profiles.sqlite",
            hardware_class="local",
            matching=Matching((), (), (), 0.0, 0.0, 0.0, 0.0, optimal=True, cost_bound_usd_per_h=0.0),
            created_at="2026-01-02T03:04:05+00:00",
            planning_s=0.0,
            inline=inline,
            seal=seal,
            folder=folder,
        )


@pytest.fixture
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Application]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "shop.py").write_text(CODE, encoding="utf-8")
    pipeline = c.Pipeline(
        name="shop",
        operators=tuple(c.OperatorSpec(name=name, uses=f"shop:{name}") for name in ("by_file", "declared")),
        metric=c.MetricSpec(name="equal", uses="shop:equal"),
        dataset=c.DatasetSpec(uses="shop:items"),
    )
    with as_a_new_process((), folder):
        yield Application(folder, c.Specification({"shop": pipeline}, None, (), module_paths=(folder,)))


def test_code_is_compared_by_the_files_whose_hashes_are_versions(application: Application, tmp_path: Path) -> None:
    plan = application.plan_file(tmp_path / "plans")
    assert plan.code_files == dict.fromkeys(("shop:by_file", "shop:equal", "shop:items"), "../shop/shop.py")
    moved = plan.moved_to(tmp_path / "deep" / "er")
    for read in (plan, moved, replace(plan, code_files={})):
        assert changed_code(read, application.specification, ["shop"]) == []
    source = application.folder / "shop.py"
    source.write_text(f"{CODE}\n", encoding="utf-8")
    for read in (plan, moved):
        assert len(changed_code(read, application.specification, ["shop"])) == 3
    assert changed_code(replace(plan, code_files={}), application.specification, ["shop"]) == []
    source.unlink()
    assert len(changed_code(plan, application.specification, ["shop"])) == 3
    installed = replace(application.specification, module_paths=())
    assert changed_code(plan, installed, ["shop"]) == [], "a package may be installed elsewhere"


def test_code_runs_from_the_own_folder_of_a_plan(application: Application, tmp_path: Path) -> None:
    specification = application.specification
    for folder in (tmp_path, application.folder, tmp_path / ".circinus", application.folder / ".circinus"):
        assert foreign_code(application.plan_file(folder), specification) is None
    (tmp_path / "inbox").mkdir()
    for folder in (tmp_path / "inbox", tmp_path / "inbox" / ".circinus", application.folder / "plans"):
        assert foreign_code(application.plan_file(folder), specification) == str(application.folder)
    link = tmp_path / "inbox" / "shop"
    link.symlink_to(application.folder)
    linked = replace(specification, module_paths=(link,))
    assert foreign_code(application.plan_file(tmp_path / "inbox"), linked) == str(application.folder)


def test_code_of_own_plans_runs_from_anywhere(
    application: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specification, inbox = application.specification, tmp_path / "inbox"
    own = application.plan_file(inbox, seal=code_seal(specification, None))
    assert foreign_code(own, specification) is None
    other = replace(specification, module_paths=(tmp_path / "other",))
    assert foreign_code(own, other) == str(tmp_path / "other")
    for seal in ("", "no hex", own.seal[:-2], f"{own.seal}00"):
        assert foreign_code(replace(own, seal=seal), specification) == str(application.folder)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    assert foreign_code(own, specification) == str(application.folder)


def test_a_seal_covers_the_documents_within_a_plan_file(application: Application, tmp_path: Path) -> None:
    specification = application.specification
    inline = InlineSpecification.of(specification, tmp_path)
    assert inline is not None
    own = application.plan_file(tmp_path, inline, code_seal(specification, inline))
    assert foreign_code(own, specification) is None
    edited = replace(inline, documents=inline.documents.replace("shop:items", "os:system"))
    for foreign in (replace(own, inline=edited), replace(own, seal=code_seal(specification, None))):
        assert foreign_code(foreign, specification) == str(application.folder)
    anywhere = replace(specification, module_paths=())
    assert foreign_code(replace(own, inline=edited), anywhere) == "installed packages"
