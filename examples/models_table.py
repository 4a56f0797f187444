"""Tables of docs/models.md, made from the examples' `models.py`: run `python examples/models_table.py`.

The option `--write` replaces the text between the markers in docs/models.md.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parent
DOCUMENT = EXAMPLES.parent / "docs" / "models.md"
BEGIN, END = "<!-- models: begin -->", "<!-- models: end -->"
_MODULES = ("meeting", "documents", "driving")


def tables() -> str:
    """Return two Markdown tables: the models, and their files with the installed sizes."""
    models = _models()
    return "\n".join(
        [
            "| model | examples | description | package | licence | weights by | size |",
            "|---|---|---|---|---|---|---|",
            *(
                f"| {model.name} | {example} | {model.description} | {model.package} {model.version} | {model.licence} "
                f"| {model.origin} | {_megabytes(sum(sizes))} |"
                for example, model, sizes in models
            ),
            "",
            "| file | size | SHA-256 |",
            "|---|---|---|",
            *(
                f"| `{file.name}` | {size:,} B | `{file.sha256}` |"
                for _, model, sizes in models
                for file, size in zip(model.files, sizes, strict=True)
            ),
            *(
                f"| `{model.joined.name}` of {model.name}, joined | {_joined_size(model, sizes):,} B "
                f"| `{model.joined.sha256}` |"
                for _, model, sizes in models
                if getattr(model, "joined", None)
            ),
        ]
    )


def document_with(text: str) -> str:
    """Return the content of docs/models.md with `text` between its markers."""
    head, _, remainder = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    _, _, tail = remainder.partition(END)
    return f"{head}{BEGIN}\n{text}\n{END}{tail}"


def _models() -> list[tuple[str, Any, list[int]]]:
    """Return each model with the examples that use it and the sizes of its files."""
    merged: dict[tuple[str, str], tuple[str, Any, list[int]]] = {}
    for example, model, sizes in _models_by_example():
        users, first, _ = merged.get((model.package, model.name), ("", model, sizes))
        merged[model.package, model.name] = (f"{users}, {example}".removeprefix(", "), first, sizes)
    return list(merged.values())


def _models_by_example() -> Iterator[tuple[str, Any, list[int]]]:
    for example in _MODULES:
        if str(EXAMPLES / example) not in sys.path:
            sys.path.append(str(EXAMPLES / example))
        files = importlib.import_module(f"{example}.model_files")
        for model in importlib.import_module(f"{example}.models").MODELS:
            yield example, model, [files.locate(model, file).stat().st_size for file in model.files]


def _joined_size(model: Any, sizes: list[int]) -> int:
    return sum(size for file, size in zip(model.files, sizes, strict=True) if ".part" in file.name)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        DOCUMENT.write_text(document_with(tables()), encoding="utf-8")
    else:
        print(tables())
