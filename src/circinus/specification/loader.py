"""From files to a specification, or to the list of everything that is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from circinus.errors import Diagnostic, SpecError
from circinus.specification.arrival_files import resolve_arrival_files
from circinus.specification.cross_references import check_references
from circinus.specification.diagnostics import did_you_mean
from circinus.specification.document import API_VERSION, Document, foreign_kind, read_document
from circinus.specification.infrastructure import Infrastructure
from circinus.specification.pipeline import Pipeline
from circinus.specification.query import Query
from circinus.specification.specification import Specification
from circinus.specification.yaml.reader import YamlNode

_SUFFIXES = (".yaml", ".yml")
WHOLE_FILE = "(file)"
"""Stands for the field in faults of a whole file."""


def load_specification(paths: Sequence[Path]) -> Specification:
    """Read files of YAML documents into one specification.

    Args:
        paths: files; a folder stands for the `*.yaml` and `*.yml` files in it (not below it), sorted by name. Empty
            files and documents of other tools in a folder are passed over, those in a file that is named are faults.

    Raises:
        SpecError: with every fault of every file.
    """
    files, faults = _files(paths)
    named = {os.path.realpath(path) for path in paths}
    texts: list[tuple[Path, str]] = []
    for file in files:
        text = _text(file)
        if isinstance(text, Diagnostic):
            faults.append(text)
        else:
            texts.append((file, text))
    folders = tuple(dict.fromkeys(Path(os.path.abspath(file)).parent for file in files))
    return _specification(
        texts,
        faults,
        module_paths=folders,
        files=tuple(files),
        sources=tuple(map(Path, paths)),
        found_in_folders={file for file, _ in texts if os.path.realpath(file) not in named},
    )


def parse_specification(text: str, name: str = "<text>", module_paths: Sequence[Path] = ()) -> Specification:
    """Read YAML documents from `text`, which messages call `name`.

    Recordings of arrivals are looked for in `module_paths`; without those, in the current folder.

    Raises:
        SpecError: with every fault.
    """
    folders = tuple(module_paths) or (Path(),)
    return _specification([(Path(name), text)], [], module_paths=tuple(module_paths), files=(), folders=folders)


def _specification(
    texts: Iterable[tuple[Path, str]],
    unread: list[Diagnostic],
    module_paths: tuple[Path, ...],
    files: tuple[Path, ...],
    sources: tuple[Path, ...] = (),
    folders: tuple[Path, ...] = (),
    found_in_folders: Collection[Path] = (),
) -> Specification:
    # Here, since what runs plans reads no YAML, and the parser loads slowly.
    from circinus.specification.yaml.reader import SYNTAX, read_yaml

    faults = list(unread)
    documents: list[Document] = []
    passed_over: list[str] = []
    others: set[Path] = set()
    complete = not unread
    order = {fault.file: position for position, fault in enumerate(unread)}
    for file, text in texts:
        order.setdefault(str(file), len(order))
        trees, found = read_yaml(text, str(file))
        complete = complete and not any(fault.field == SYNTAX for fault in found)
        if file in found_in_folders:
            ours, whose = _told_apart(trees, file)
            passed_over += whose
            if not ours and not found:
                passed_over += [] if whose else [f"{file}: holds no document"]
                others.add(file)
                continue
            trees = ours
        if not trees and not found:
            found = [Diagnostic(str(file), 0, WHOLE_FILE, "no document", "at least one, beginning with apiVersion")]
        faults += found
        told = {(fault.line, fault.field) for fault in found}
        for tree in trees:
            document, wrong = read_document(tree, str(file))
            complete = complete and document is not None
            faults += [fault for fault in wrong if (fault.line, fault.field) not in told]
            if document is not None:
                documents.append(document)
    faults += [_nothing_of_ours(folder) for folder in _folders_without_ours(found_in_folders, others)]
    faults += check_references(documents, complete)
    documents, unplayable = resolve_arrival_files(documents, folders)
    faults += unplayable
    if faults:
        # Recordings stand behind the files that name them.
        raise SpecError(sorted(faults, key=lambda fault: (order.get(fault.file, len(order)), fault.line)))
    contents = [document.content for document in documents]
    return Specification(
        pipelines={content.name: content for content in contents if isinstance(content, Pipeline)},
        infrastructure=next((content for content in contents if isinstance(content, Infrastructure)), None),
        queries=tuple(content for content in contents if isinstance(content, Query)),
        module_paths=module_paths,
        files=tuple(file for file in files if file not in others),
        sources=sources,
        skipped_documents=tuple(passed_over),
        locations={(d.kind, d.name): d.source for d in documents if d.name is not None and d.source is not None},
    )


def _told_apart(trees: Sequence[YamlNode], file: Path) -> tuple[list[YamlNode], list[str]]:
    """The documents that may be ours, and what the others are."""
    whose = [(tree, foreign_kind(tree)) for tree in trees]
    return (
        [tree for tree, other in whose if other is None],
        [f"{file}:{tree.line}: is a document of {other}" for tree, other in whose if other is not None],
    )


def _folders_without_ours(found: Collection[Path], others: Collection[Path]) -> list[Path]:
    """Folders all files of which were passed over."""
    return sorted({file.parent for file in others} - {file.parent for file in found if file not in others})


def _nothing_of_ours(folder: Path) -> Diagnostic:
    return Diagnostic(
        str(folder), 0, WHOLE_FILE, "a folder without any document of Circinus", f"one of apiVersion: {API_VERSION}"
    )


def _files(paths: Sequence[Path]) -> tuple[list[Path], list[Diagnostic]]:
    """The files that `paths` stand for, each once."""
    found: dict[str, Path] = {}
    faults: list[Diagnostic] = []
    if not paths:
        faults.append(Diagnostic("(no path)", 0, WHOLE_FILE, "nothing", "at least one file or folder"))
    for path in map(Path, paths):
        files = [path]
        if path.is_dir():
            try:
                files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())
            except OSError as error:
                faults.append(_unreadable(path, error))
                continue
            if not files:
                faults.append(
                    Diagnostic(str(path), 0, WHOLE_FILE, "a folder without any", "*.yaml or *.yml files in it")
                )
        for file in files:
            found.setdefault(os.path.realpath(file), file)
    return list(found.values()), faults


def _text(file: Path) -> str | Diagnostic:
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return Diagnostic(str(file), 0, WHOLE_FILE, "nothing", "a file", _neighbour(file))
    except OSError as error:
        return _unreadable(file, error)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return Diagnostic(str(file), line, WHOLE_FILE, f"the byte 0x{content[error.start]:02x}", "text in UTF-8")


def _unreadable(path: Path, error: OSError) -> Diagnostic:
    found = f"what cannot be read ({error.strerror})"
    return Diagnostic(str(path), 0, WHOLE_FILE, found, "a file or folder that may be read")


def _neighbour(file: Path) -> str:
    """A hint at a file of nearly the same name in the same folder."""
    present = file.parent.iterdir() if file.parent.is_dir() else ()
    return did_you_mean(file.name, [other.name for other in present])
