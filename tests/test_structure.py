"""The structure shows the flow: imports go one way only, files stay small, heavy parts are imported late."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import circinus
from source_trees import source_tree

SOURCE = Path(circinus.__file__).parent
FLOW = (
    "arrays", "errors", "private_files", "seals", "statistics", "specification", "operators", "profiling", "queueing",
    "estimation", "simulation", "planning", "matching", "serving", "control", "testing", "reporting", "api", "cli",
)  # fmt: skip
HEAVY = {"highspy", "ray", "PIL", "faster_whisper", "ctranslate2", "onnxruntime", "scipy", "sklearn", "matplotlib"}

PUBLIC = """
AccuracySlo AdmissionResult Assignment Branch BurstyArrivals CircinusError ControlOptions CostSlo DatasetSpec
DeployedPlan Diagnostic EngineHandle Estimate Explanation FrontierReport GpuMemoryCase HardwareClass Infrastructure
Item Knob LatencySlo LearntServiceTimes Link LoadReport MetricSpec Operator OperatorError OperatorSpec OverloadedError
PeriodicArrivals Pipeline Plan PlanController PlanningError PoissonArrivals Pool ProfileError ProfileReport Query
RecordedArrivals Rejection Relaxation ServingError SimulationReport Site SizingReport Slos SpecError Specification
StalePlanError Tenant ValidationReport Workspace load_specification operator parse_specification progress_bar
""".split()  # noqa: SIM905  (fifty quoted names are harder to read)
"""Every name that `import circinus` offers; all other modules are private."""


@cache
def _imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(source_tree(path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append(str(node.module))
            if node.module == "circinus":
                found += [f"circinus.{alias.name}" for alias in node.names if alias.name in FLOW]
    return found


def _files() -> list[Path]:
    return [path for path in sorted(SOURCE.rglob("*.py")) if "starter" not in path.relative_to(SOURCE).parts]


def test_a_folder_imports_only_folders_before_it() -> None:
    wrong = [
        f"{path.relative_to(SOURCE)} imports {name}, which stands behind it"
        for path in _files()
        if (folder := path.relative_to(SOURCE).parts[0].removesuffix(".py")) not in ("__init__", "__main__")
        for name in _imports(path)
        if name.startswith("circinus.") and FLOW.index(name.split(".")[1]) > FLOW.index(folder)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_file_is_too_long_to_read_at_once() -> None:
    lengths = {path.relative_to(SOURCE): len(path.read_text(encoding="utf-8").splitlines()) for path in _files()}
    assert len(lengths) > 100
    too_long = [f"{path}: {length} lines" for path, length in lengths.items() if length > 450]
    assert not too_long, "\n".join(too_long)


def test_help_imports_nothing_heavy() -> None:
    """Speed itself is not asserted; what makes it slow is."""
    code = (
        "import sys\nsys.argv = ['circinus', '--help']\nfrom circinus.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\nprint('LOADED', *sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.rpartition("LOADED")[2].split())
    assert not loaded & (
        HEAVY | {"numpy", "pydantic", "ruamel.yaml", "rich.console", "typer.rich_utils", "circinus.cli.plan"}
    )


def test_the_public_names_are_these() -> None:
    assert sorted(circinus.__all__) == sorted(PUBLIC)
    assert all(getattr(circinus, name) is not None for name in PUBLIC)


def test_import_circinus_imports_nothing_heavy() -> None:
    run = subprocess.run(
        [sys.executable, "-c", "import sys, circinus; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    loaded = set(run.stdout.split())
    assert not loaded & (HEAVY | {"numpy", "pydantic", "ruamel.yaml", "rich", "typer", "asyncio", "logging"})
    assert {name for name in loaded if name.startswith("circinus.")} == set()


def test_only_the_command_line_imports_the_command_line() -> None:
    root = SOURCE.parents[1]
    paths = [*_files(), *sorted((root / "benchmarks").rglob("*.py")), *sorted((root / "examples").rglob("*.py"))]
    assert len(paths) > 400
    importing = [
        str(path.relative_to(root))
        for path in paths
        if (SOURCE / "cli") not in path.parents
        and path != SOURCE / "__main__.py"
        and any(name == "circinus.cli" or name.startswith("circinus.cli.") for name in _imports(path))
    ]
    assert not importing


def test_files_of_tests_have_unique_names() -> None:
    """Pytest imports them by name only."""
    names = [path.name for path in (SOURCE.parents[1] / "tests").rglob("test_*.py")]
    assert len(names) > 200
    assert sorted(names) == sorted(set(names))


def test_the_index_and_the_list_of_decisions_are_complete() -> None:
    docs = SOURCE.parents[1] / "docs"
    pages = {path.relative_to(docs).with_suffix("").as_posix() for path in docs.glob("decisions/0*.md")}
    assert pages
    assert pages <= set((docs / "index.md").read_text(encoding="utf-8").splitlines())
    links = (docs / "decisions" / "README.md").read_text(encoding="utf-8")
    assert all(f"({Path(page).name}.md)" in links for page in pages)
