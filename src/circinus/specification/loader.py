"""Loading of specifications from files or text, with all problems reported at once."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from circinus.errors import Diagnostic, SpecError
from circinus.specification.arrival_files import resolve_arrival_files
from circinus.specification.cross_references import check_references
from circinus.specification.document import API_VERSION, Document, foreign_kind, read_document
from circinus.specification.infrastructure import Infrastructure
from circinus.specification.limits import MAX_FAULTS, MAX_FILE_BYTES
from circinus.specification.pipeline import Pipeline
from circinus.specification.query import Query
from circinus.specification.source_files import UnusableFileError, read_regular, similar_sibling
from circinus.specification.specification import Specification
from circinus.specification.yaml.reader import YamlNode

_SUFFIXES = (".yaml", ".yml")
WHOLE_FILE = "(file)"
"""Placeholder for the field in diagnostics about a whole file."""
NO_FILE, NO_YAML_FILES = "no such file", "a folder without YAML files"
NO_DOCUMENTS = "a folder without Circinus documents"
_NO_FILES_HINT = "name the folder of a specification, or make one with `circinus init`"


def load_specification(paths: Sequence[Path]) -> Specification:
    """Read files of YAML documents into one specification.

    Args:
        paths: files and folders. A folder means its `*.yaml` and `*.yml` files, sorted by name, without hidden ones and
            subfolders. Empty files and documents of other tools are skipped in a folder, an error in a file passed by
            name.

    Raises:
        SpecError: a file is invalid; lists the problems of all files.

    Example:
        >>> import circinus as c
        >>> from pathlib import Path
        >>> starter = Path(c.__file__).parent / "cli" / "starter"
        >>> sorted(path.name for path in c.load_specification([starter]).files)
        ['infrastructure.yaml', 'pipeline.yaml', 'queries.yaml']
    """
    files, faults = _files(paths)
    explicit = {os.path.realpath(path) for path in paths}
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
        files_of_folders={file for file, _ in texts if os.path.realpath(file) not in explicit},
    )


def parse_specification(text: str, name: str = "<text>", module_paths: Sequence[Path] = ()) -> Specification:
    """Read YAML documents from `text`, which messages call `name`.

    Relative paths of recorded arrivals are resolved in `module_paths`, or else in the current folder.

    Raises:
        SpecError: the text is invalid; lists all problems.

    Example:
        >>> import circinus as c
        >>> specification = c.parse_specification('''
        ... apiVersion: circinus/v1
        ... kind: Pipeline
        ... metadata: {name: echo}
        ... spec:
        ...   operators: [{name: echo, uses: "my_code:echo"}]
        ...   metric: {name: exact match, uses: "my_code:exact_match"}
        ...   dataset: {uses: "my_code:items"}
        ... ''')
        >>> list(specification.pipelines)
        ['echo']
    """
    paths = tuple(module_paths)
    return _specification([(Path(name), text)], [], module_paths=paths, files=(), folders=(*paths, Path()))


def _specification(
    texts: Iterable[tuple[Path, str]],
    unread: list[Diagnostic],
    module_paths: tuple[Path, ...],
    files: tuple[Path, ...],
    sources: tuple[Path, ...] = (),
    folders: tuple[Path, ...] = (),
    files_of_folders: Collection[Path] = (),
) -> Specification:
    # Imported late: the parser loads slowly, and processes that run plans read no YAML.
    from circinus.specification.yaml.reader import SYNTAX, read_yaml

    faults = list(unread)
    documents: list[Document] = []
    skipped: list[str] = []
    foreign_files: set[Path] = set()
    complete = not unread
    order = {fault.file: position for position, fault in enumerate(unread)}
    for file, text in texts:
        order.setdefault(str(file), len(order))
        trees, syntax_faults = read_yaml(text, str(file))
        complete = complete and not any(fault.field == SYNTAX for fault in syntax_faults)
        if file in files_of_folders:
            own_trees, foreign = _split_by_owner(trees, file)
            skipped += foreign
            if not own_trees and not syntax_faults:
                skipped += [] if foreign else [f"{file}: contains no document"]
                foreign_files.add(file)
                continue
            trees = own_trees
        if not trees and not syntax_faults:
            expected = "at least one, beginning with apiVersion"
            syntax_faults = [Diagnostic(str(file), 0, WHOLE_FILE, "no document", expected)]
        faults += syntax_faults
        reported = {(fault.line, fault.field) for fault in syntax_faults}
        for tree in trees:
            document, document_faults = read_document(tree, str(file))
            complete = complete and document is not None
            faults += [fault for fault in document_faults if (fault.line, fault.field) not in reported]
            if document is not None:
                documents.append(document)
    expected = f"a document with apiVersion: {API_VERSION}"
    folders_of_others = _foreign_folders(files_of_folders, foreign_files)
    faults += [Diagnostic(str(folder), 0, WHOLE_FILE, NO_DOCUMENTS, expected) for folder in folders_of_others]
    faults += check_references(documents, complete)
    documents, arrival_faults = resolve_arrival_files(documents, folders)
    faults += arrival_faults
    if faults:
        # Recorded arrivals come after the files that name them.
        raise SpecError(_first(sorted(faults, key=lambda fault: (order.get(fault.file, len(order)), fault.line))))
    contents = [document.content for document in documents]
    return Specification(
        pipelines={content.name: content for content in contents if isinstance(content, Pipeline)},
        infrastructure=next((content for content in contents if isinstance(content, Infrastructure)), None),
        queries=tuple(content for content in contents if isinstance(content, Query)),
        module_paths=module_paths,
        arrival_folders=tuple(folder.absolute() for folder in folders),
        files=tuple(file for file in files if file not in foreign_files),
        sources=sources,
        skipped_documents=tuple(skipped),
        locations={(d.kind, d.name): d.source for d in documents if d.name is not None and d.source is not None},
    )


def _first(faults: list[Diagnostic]) -> list[Diagnostic]:
    """Return the first faults and, if there are very many, one more that says so."""
    if len(faults) <= MAX_FAULTS:
        return faults
    more = Diagnostic(faults[MAX_FAULTS].file, 0, WHOLE_FILE, "more problems", "none", "mend those above first")
    return [*faults[:MAX_FAULTS], more]


def _split_by_owner(trees: Sequence[YamlNode], file: Path) -> tuple[list[YamlNode], list[str]]:
    """Return the documents that may be ours, and descriptions of the documents of other tools."""
    kinds = [(tree, foreign_kind(tree)) for tree in trees]
    return (
        [tree for tree, foreign in kinds if foreign is None],
        [f"{file}:{tree.line}: another tool's document ({foreign})" for tree, foreign in kinds if foreign is not None],
    )


def _foreign_folders(files: Collection[Path], foreign_files: Collection[Path]) -> list[Path]:
    """Return the folders without any file of ours."""
    own_files = [file for file in files if file not in foreign_files]
    return sorted({file.parent for file in foreign_files} - {file.parent for file in own_files})


def _files(paths: Sequence[Path]) -> tuple[list[Path], list[Diagnostic]]:
    """Return the files of `paths` without repetition, and the problems of the paths."""
    by_real_path: dict[str, Path] = {}
    faults: list[Diagnostic] = []
    if not paths:
        faults.append(Diagnostic("(no path)", 0, WHOLE_FILE, "nothing", "at least one file or folder"))
    for path in map(Path, paths):
        files = [path]
        if os.path.isdir(path):  # unlike the method, it is false for what cannot be accessed
            try:
                files = sorted(file for file in path.iterdir() if _is_visible_yaml(file))
            except OSError as error:
                faults.append(_unreadable(path, error))
                continue
            if not files:
                faults.append(
                    Diagnostic(str(path), 0, WHOLE_FILE, NO_YAML_FILES, "*.yaml or *.yml files", _NO_FILES_HINT)
                )
        for file in files:
            by_real_path.setdefault(os.path.realpath(file), file)
    return list(by_real_path.values()), faults


def _is_visible_yaml(file: Path) -> bool:
    return file.suffix in _SUFFIXES and not file.name.startswith(".") and file.is_file()


def _text(file: Path) -> str | Diagnostic:
    try:
        content = read_regular(file, MAX_FILE_BYTES)
    except FileNotFoundError:
        return Diagnostic(str(file), 0, WHOLE_FILE, NO_FILE, "an existing file", similar_sibling(file))
    except OSError as error:
        return _unreadable(file, error)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return Diagnostic(str(file), line, WHOLE_FILE, f"the byte 0x{content[error.start]:02x}", "text in UTF-8")


def _unreadable(path: Path, error: OSError) -> Diagnostic:
    found = str(error.strerror) if isinstance(error, UnusableFileError) else f"an unreadable path ({error.strerror})"
    return Diagnostic(str(path), 0, WHOLE_FILE, found, "a readable file or folder")
