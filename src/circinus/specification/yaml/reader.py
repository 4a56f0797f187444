"""Reader of YAML text: trees of values with line numbers, and all syntax problems."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, MaxDepthExceededError
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from circinus.errors import Diagnostic
from circinus.specification.base_model import SURROGATE
from circinus.specification.diagnostics import Path, describe, key_text, shorten
from circinus.specification.limits import MAX_DEPTH, MAX_INTEGER, MAX_LINES, MAX_SYNTAX_FAULTS, MAX_YAML_VALUES


@dataclass(frozen=True)
class YamlNode:
    """Value with its location in the text."""

    line: int
    """Line, counted from 1; for a mapping or a list, the line of its first entry."""
    value: Any
    """Plain value: None, bool, int, float, str, or nested lists and dictionaries (with text keys) of these."""
    fields: Mapping[str, YamlNode] = field(default_factory=dict)
    """Values of a mapping."""
    key_lines: Mapping[str, int] = field(default_factory=dict)
    entries: tuple[YamlNode, ...] = ()
    """Entries of a list."""

    def locate(self, path: Path) -> tuple[int, str]:
        """Return the location in the text of the value at `path` in the validated model.

        `path` refers to the full form. The location refers to the short form if the text has one: the name in
        `knobs: {model: [tiny]}` is the key, the limit in `- latency p95 <= 800ms` is the whole text.

        Returns:
            The line (of a scalar, or of the key of a mapping or list, or of the parent of an absent value), and the
            dotted path as written.
        """
        node, line, written = self, self.line, ""
        named_by_key = False
        for index, step in enumerate(path):
            key = step if isinstance(step, str) else None
            if isinstance(step, int) and step < len(node.fields):  # mapping from names instead of a list
                key = list(node.fields)[step]
            elif isinstance(step, int) and step < len(node.entries):
                node, written = node.entries[step], f"{written}[{step}]"
                line = node.line
            elif (
                key is not None
                and named_by_key
                and key not in node.fields
                and (key == "name" or not isinstance(node.value, dict))
            ):
                key = None  # the key is the name, and its value is the main field
            elif key is not None and node.entries:
                position = node._entry_with(key)
                if position is not None:
                    node, written = node.entries[position], f"{written}[{position}]"
                    line = node.line
            if key is not None and key in node.fields:
                line, node, written = node._line_of(key), node.fields[key], f"{written}.{key_text(key)}"
            elif key is not None and isinstance(node.value, dict):
                return line, f"{written}{dotted(path[index:])}".removeprefix(".")
            named_by_key = isinstance(step, int) and key is not None
        return line, written.removeprefix(".")

    def _line_of(self, key: str) -> int:
        child = self.fields[key]
        is_scalar = child.value is not None and not isinstance(child.value, dict | list)
        return child.line if is_scalar else self.key_lines[key]

    def _entry_with(self, key: str) -> int | None:
        """Return the position of the first entry that is a mapping with `key` or a text that begins with `key`."""
        for position, entry in enumerate(self.entries):
            is_text = isinstance(entry.value, str) and entry.value.lstrip().startswith(key)
            if is_text or key in entry.fields:
                return position
        return None


def dotted(path: Path) -> str:
    """Return `path` as text, such as `.operators[2].after[0]`."""
    return "".join(f".{key_text(step)}" if isinstance(step, str) else f"[{step}]" for step in path)


SYNTAX = "(YAML)"
"""Placeholder for the field in diagnostics about unreadable text."""

_SYNTAX_HINTS = {
    "\\t": "indent with spaces",
    "mapping values are not allowed": "put text that contains `: ` in quotes",
    "chomping or indentation": "put text that begins with `>` in quotes",
    f"at most {MAX_YAML_VALUES:,} values": "divide it into several files",
    "cannot start any token": "put text that begins with such a character in quotes",
}

_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = ("str", "timestamp", "value")
_DOCUMENT_START = re.compile(r"^---(?=\s|$)", re.MULTILINE)
_LINE_BREAK = re.compile(r"\r\n?|\n")


def read_yaml(text: str, file: str) -> tuple[list[YamlNode], list[Diagnostic]]:
    """Return the non-empty documents of `text`, and its syntax problems.

    Problems are text that is not YAML (reading continues at the next `---`), duplicate keys, keys that are not text,
    tags, recursive anchors, and more values or levels than `limits` allows. Merge keys (`<<: *base`) are merged.
    """
    faults: list[Diagnostic] = []
    converter = _Converter(file, faults)
    trees = [converter.document(node, line) for node, line in _nodes(text, file, faults)]
    return [tree for tree in trees if tree.value is not None], faults


class _TooManyValuesError(MarkedYAMLError):
    """More values than `MAX_YAML_VALUES`."""


class _BoundedComposer(Composer):
    """Composer that counts values, those of an alias each time: a few hundred bytes may stand for billions of values.

    An anchor that is defined again replaces the former one, as YAML says, without the parser's warning.
    """

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader)
        self.warn_double_anchors = False
        self._values = 0
        self._sizes: dict[int, int] = {}
        """Id of an anchored node -> number of its values."""

    def compose_document(self) -> Any:
        """Return the root of the next document."""
        self._sizes.clear()  # ids are unique only among live nodes
        return super().compose_document()

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Return the next node."""
        mark, before = self.parser.peek_event().start_mark, self._values
        self._values += 1
        node = super().compose_node(parent, index)
        if node.anchor is not None:
            self._sizes[id(node)] = self._values - before
        if self._values > MAX_YAML_VALUES:
            problem = f"expected at most {MAX_YAML_VALUES:,} values, but found more, with those of aliases"
            raise _TooManyValuesError(problem=problem, problem_mark=mark)
        return node

    def return_alias(self, node: Any) -> Any:
        """Return the node that an alias names; it counts once within itself."""
        self._values += self._sizes.get(id(node), 1) - 1
        return node


def _nodes(text: str, file: str, faults: list[Diagnostic]) -> Iterator[tuple[Node, int]]:
    """Yield the root of each document, and the number of lines before the part of the text that its marks refer to."""
    start = line = 0
    count = text.count("\n")
    if count > MAX_LINES:  # each takes microseconds
        lines = f"{count:,} lines"
        faults.append(Diagnostic(file, 0, SYNTAX, lines, f"at most {MAX_LINES:,}", "divide it into several files"))
        return
    while True:
        yaml = YAML(typ="safe", pure=True)
        yaml.Composer, yaml.max_depth = _BoundedComposer, MAX_DEPTH
        try:
            for node in yaml.compose_all(text[start:]):
                yield node, line
            return
        except ReaderError as error:
            line += len(_LINE_BREAK.findall(text, start, start + error.position)) + 1
            faults.append(
                Diagnostic(file, line, SYNTAX, f"the character U+{error.character:04X}", "printable characters")
            )
            return
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            position, error_line = (mark.index, mark.line) if mark is not None else (0, 0)
            faults.append(_syntax_fault(error, file, line + error_line + 1))
            if isinstance(error, _TooManyValuesError) or len(faults) >= MAX_SYNTAX_FAULTS:
                return
        line_start = max(text.rfind("\n", start, start + position) + 1, start + 1)
        match = _DOCUMENT_START.search(text, line_start)
        if match is None:
            return
        line += len(_LINE_BREAK.findall(text, start, match.start()))
        start = match.start()


def _syntax_fault(error: MarkedYAMLError, file: str, line: int) -> Diagnostic:
    if isinstance(error, MaxDepthExceededError):
        return Diagnostic(file, line, SYNTAX, "a nesting too deep to be read", f"at most {MAX_DEPTH} levels")
    problem = str(error.problem or error.context)
    match = re.fullmatch(r"expected (?P<expected>.*), but (?:found|got) (?P<found>.*)", problem)
    found, expected = (match["found"], match["expected"]) if match else (problem.removeprefix("found "), "valid YAML")
    hint = next((hint for part, hint in _SYNTAX_HINTS.items() if part in problem), "")
    return Diagnostic(file, line, SYNTAX, found, expected, hint)


class _Converter:
    """Conversion of composed nodes to trees. All aliases of an anchor share one tree."""

    def __init__(self, file: str, faults: list[Diagnostic]) -> None:
        constructor = YAML(typ="safe", pure=True).constructor
        self._file = file
        self._faults = faults
        self._scalars: dict[str, Callable[[Any], Any]] = {
            "int": constructor.construct_yaml_int,
            "float": constructor.construct_yaml_float,
            "bool": constructor.construct_yaml_bool,
            "null": constructor.construct_yaml_null,
        }
        self._first_line = 1
        self._converted: dict[int, YamlNode] = {}
        self._in_progress: set[int] = set()
        self._path: list[str | int] = []

    def document(self, root: Node, lines_before: int) -> YamlNode:
        """Return the tree of one document."""
        self._first_line = lines_before + 1
        self._converted.clear()  # ids are unique only among live nodes
        return self._tree(root)

    def _line(self, node: Node) -> int:
        return int(node.start_mark.line) + self._first_line

    def _tree(self, node: Node) -> YamlNode:
        cached = self._converted.get(id(node))
        if cached is not None:
            return cached
        line = self._line(node)
        if id(node) in self._in_progress:
            self._fault(line, "an anchor inside itself", "a value that does not contain itself")
            return YamlNode(line, None)
        self._in_progress.add(id(node))
        if isinstance(node, ScalarNode):
            tree = YamlNode(line, self._scalar(node, line))
        elif isinstance(node, MappingNode):
            self._refuse_tag(node, "map", line)
            tree = self._mapping(node, line)
        else:
            assert isinstance(node, SequenceNode)
            self._refuse_tag(node, "seq", line)
            tree = self._sequence(node, line)
        self._in_progress.remove(id(node))
        self._converted[id(node)] = tree
        return tree

    def _scalar(self, node: ScalarNode, line: int) -> Any:
        tag = str(node.tag)
        kind = tag.removeprefix(_TAG)
        if kind in _TEXT_TAGS:
            return self._text(node, line)
        if kind in self._scalars:
            try:
                value = self._scalars[kind](node)
            except (ValueError, LookupError):
                self._fault(line, describe(node.value), f"a value of the tag !!{kind}")
                return node.value
            if isinstance(value, int) and abs(value) > MAX_INTEGER:
                self._fault(line, describe(node.value), "a whole number of at most 64 bits")
                return 0
            return value
        self._fault(line, f"the tag {shorten(tag)}", "plain YAML without tags")
        return node.value

    def _text(self, node: ScalarNode, line: int) -> str:
        text = str(node.value)
        if not text.isascii() and SURROGATE.search(text):
            self._fault(line, f"{describe(text)} with an unpaired surrogate", "text in Unicode")
        return SURROGATE.sub("\ufffd", text)

    def _refuse_tag(self, node: Node, kind: str, line: int) -> None:
        if node.tag != _TAG + kind:
            self._fault(line, f"the tag {shorten(str(node.tag))}", "plain YAML without tags")

    def _sequence(self, node: SequenceNode, line: int) -> YamlNode:
        entries = []
        for position, entry in enumerate(node.value):
            self._path.append(position)
            entries.append(self._tree(entry))
            self._path.pop()
        return YamlNode(line, [entry.value for entry in entries], entries=tuple(entries))

    def _mapping(self, node: MappingNode, line: int) -> YamlNode:
        fields: dict[str, YamlNode] = {}
        lines: dict[str, int] = {}
        merged: list[YamlNode] = []
        for key, value in node.value:
            key_line = self._line(key)
            if not isinstance(key, ScalarNode):
                self._fault(key_line, "a key that is a list or a mapping", "text")
                continue
            name = self._text(key, key_line)
            self._path.append(name)
            child = self._tree(value)
            if key.tag == f"{_TAG}merge":
                merged += self._mergeable(child, key_line)
            elif name in fields:
                self._fault(key_line, f"{key_text(name)} again (first on line {lines[name]})", "every key once")
            else:
                fields[name] = child
                lines[name] = key_line
            self._path.pop()
        for base in merged:
            for name, child in base.fields.items():
                if name not in fields:
                    fields[name] = child
                    lines[name] = base.key_lines[name]
        return YamlNode(line, {name: child.value for name, child in fields.items()}, fields, lines)

    def _mergeable(self, child: YamlNode, line: int) -> list[YamlNode]:
        bases = list(child.entries) if isinstance(child.value, list) else [child]
        if all(isinstance(base.value, dict) for base in bases):
            return bases
        self._fault(line, describe(child.value), "an anchored mapping to merge, such as `<<: *base`")
        return []

    def _fault(self, line: int, found: str, expected: str) -> None:
        place = dotted(tuple(self._path)).removeprefix(".") or SYNTAX
        self._faults.append(Diagnostic(self._file, line, place, found, expected))
