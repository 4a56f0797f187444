"""Reading YAML text into trees of located values, with every fault of its syntax."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from circinus.errors import Diagnostic
from circinus.specification.base_model import SURROGATE
from circinus.specification.diagnostics import Path, describe


@dataclass(frozen=True)
class YamlNode:
    """A value with its place."""

    line: int
    """Counted from 1; of a mapping or a list, that of its first entry."""
    value: Any
    """Plain: None, bool, int, float, str, or lists and dicts (with text keys) of such."""
    fields: Mapping[str, YamlNode] = field(default_factory=dict)
    """The values of a mapping."""
    key_lines: Mapping[str, int] = field(default_factory=dict)
    entries: tuple[YamlNode, ...] = ()
    """The entries of a list."""

    def locate(self, path: Path) -> tuple[int, str]:
        """Where in the text the value stands that validation knows as `path`.

        The path is that of the full form. Where the text has a short form, the place is that of the short form: the
        name of `knobs: {model: [tiny]}` is its key, the limit of `- latency p95 <= 800ms` is the whole text.

        Returns:
            The line (of a scalar its own, of a mapping or list that of its key; where there is nothing, that of what
            should hold it), and the dotted path as written.
        """
        node, line, written = self, self.line, ""
        named_by_key = False
        for index, step in enumerate(path):
            key = step if isinstance(step, str) else None
            if isinstance(step, int) and step < len(node.fields):  # a mapping from names stands for a list
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
                key = None  # the name is the key itself, and the value alone stands for its main field
            elif key is not None and node.entries:
                position = node._entry_about(key)
                if position is not None:
                    node, written = node.entries[position], f"{written}[{position}]"
                    line = node.line
            if key is not None and key in node.fields:
                line, node, written = node._line_of(key), node.fields[key], f"{written}.{key}"
            elif key is not None and isinstance(node.value, dict):
                return line, f"{written}{dotted(path[index:])}".removeprefix(".")
            named_by_key = isinstance(step, int) and key is not None
        return line, written.removeprefix(".")

    def _line_of(self, key: str) -> int:
        child = self.fields[key]
        is_scalar = child.value is not None and not isinstance(child.value, dict | list)
        return child.line if is_scalar else self.key_lines[key]

    def _entry_about(self, key: str) -> int | None:
        """The first entry of a list that is a mapping with `key`, or a text that begins with it."""
        for position, entry in enumerate(self.entries):
            text = isinstance(entry.value, str) and entry.value.lstrip().startswith(key)
            if text or key in entry.fields:
                return position
        return None


def dotted(path: Path) -> str:
    """`path` as text: `.operators[2].after[0]`."""
    return "".join(f".{step}" if isinstance(step, str) else f"[{step}]" for step in path)


SYNTAX = "(YAML)"
"""Stands for the field in faults that keep a text from being read at all."""

_SYNTAX_HINTS = {
    "\\t": "indent with spaces",
    "mapping values are not allowed": "put text that contains `: ` in quotes",
    "chomping or indentation": "put text that begins with `>` in quotes",
    "cannot start any token": "put text that begins with such a character in quotes",
}

_TAG = "tag:yaml.org,2002:"
_KEPT_AS_TEXT = ("str", "timestamp", "value")
_DOCUMENT_START = re.compile(r"^---(?=\s|$)", re.MULTILINE)


def read_yaml(text: str, file: str) -> tuple[list[YamlNode], list[Diagnostic]]:
    """Every document of `text` that is not empty, and what is wrong with its syntax.

    Faults are: text that is not YAML (reading goes on at the next `---`), keys given twice in a mapping, keys that
    are no text, tags, anchors that contain themselves. Merge keys (`<<: *base`) are merged.
    """
    faults: list[Diagnostic] = []
    converter = _Converter(file, faults)
    trees = [converter.document(node) for node in _nodes(text, file, faults)]
    return [tree for tree in trees if tree.value is not None], faults


def _nodes(text: str, file: str, faults: list[Diagnostic]) -> Iterator[Node]:

    start = 0
    while True:
        skipped = text.count("\n", 0, start)
        try:
            yield from YAML(typ="safe", pure=True).compose_all("\n" * skipped + text[start:])
            return
        except ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            faults.append(
                Diagnostic(file, line, SYNTAX, f"the character U+{error.character:04X}", "printable characters")
            )
            return
        except RecursionError:
            faults.append(Diagnostic(file, 1, SYNTAX, "a nesting too deep to be read", "a few levels"))
            return
        except MarkedYAMLError as error:
            line = _line_of(error)
            faults.append(_syntax_fault(error, file, line))
        starts = (match.start() for match in _DOCUMENT_START.finditer(text, start + 1))
        later = next((at for at in starts if text.count("\n", 0, at) + 1 >= line), None)
        if later is None:
            return
        start = later


def _line_of(error: MarkedYAMLError) -> int:
    mark = error.problem_mark or error.context_mark
    return int(mark.line) + 1 if mark is not None else 1


def _syntax_fault(error: MarkedYAMLError, file: str, line: int) -> Diagnostic:
    problem = str(error.problem or error.context)
    unmet = re.fullmatch(r"expected (?P<expected>.*), but (?:found|got) (?P<found>.*)", problem)
    found, expected = (unmet["found"], unmet["expected"]) if unmet else (problem.removeprefix("found "), "valid YAML")
    hint = next((hint for part, hint in _SYNTAX_HINTS.items() if part in problem), "")
    return Diagnostic(file, line, SYNTAX, found, expected, hint)


class _Converter:
    """Turns composed nodes into trees; an anchored node becomes one tree, however often it is used."""

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
        self._done: dict[int, YamlNode] = {}
        self._under_way: set[int] = set()
        self._path: list[str | int] = []

    def document(self, root: Node) -> YamlNode:
        """The tree of one document; its anchors are its own."""
        self._done.clear()  # ids are unique only among nodes that live
        return self._tree(root)

    def _tree(self, node: Node) -> YamlNode:
        known = self._done.get(id(node))
        if known is not None:
            return known
        line = node.start_mark.line + 1
        if id(node) in self._under_way:
            self._fault(line, "an anchor inside itself", "values that end")
            return YamlNode(line, None)
        self._under_way.add(id(node))
        if isinstance(node, ScalarNode):
            made = YamlNode(line, self._scalar(node, line))
        elif isinstance(node, MappingNode):
            self._refuse_tag(node, "map", line)
            made = self._mapping(node, line)
        else:
            assert isinstance(node, SequenceNode)
            self._refuse_tag(node, "seq", line)
            made = self._sequence(node, line)
        self._under_way.remove(id(node))
        self._done[id(node)] = made
        return made

    def _scalar(self, node: ScalarNode, line: int) -> Any:
        tag = str(node.tag)
        kind = tag.removeprefix(_TAG)
        if kind in _KEPT_AS_TEXT:
            return self._text(node, line)
        if kind in self._scalars:
            try:
                return self._scalars[kind](node)
            except (ValueError, KeyError):
                self._fault(line, describe(node.value), f"a value of the tag !!{kind}")
                return node.value
        self._fault(line, f"the tag {tag}", "plain YAML without tags")
        return node.value

    def _text(self, node: ScalarNode, line: int) -> str:
        text = str(node.value)
        if not text.isascii() and SURROGATE.search(text):
            self._fault(line, f"{describe(text)} with half a character", "text in Unicode")
        return SURROGATE.sub("\ufffd", text)

    def _refuse_tag(self, node: Node, kind: str, line: int) -> None:
        if node.tag != _TAG + kind:
            self._fault(line, f"the tag {node.tag}", "plain YAML without tags")

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
            key_line = key.start_mark.line + 1
            if not isinstance(key, ScalarNode):
                self._fault(key_line, "a key that is a list or a mapping", "text")
                continue
            name = self._text(key, key_line)
            self._path.append(name)
            child = self._tree(value)
            if key.tag == f"{_TAG}merge":
                merged += self._mergeable(child, key_line)
            elif name in fields:
                self._fault(key_line, f"{name} again (first on line {lines[name]})", "every key once")
            else:
                fields[name] = child
                lines[name] = key_line
            self._path.pop()
        for other in merged:
            for name, child in other.fields.items():
                if name not in fields:
                    fields[name] = child
                    lines[name] = other.key_lines[name]
        return YamlNode(line, {name: child.value for name, child in fields.items()}, fields, lines)

    def _mergeable(self, child: YamlNode, line: int) -> list[YamlNode]:
        several = list(child.entries) if isinstance(child.value, list) else [child]
        if all(isinstance(other.value, dict) for other in several):
            return several
        self._fault(line, describe(child.value), "an anchored mapping to merge, such as `<<: *base`")
        return []

    def _fault(self, line: int, found: str, expected: str) -> None:
        self._faults.append(Diagnostic(self._file, line, _field(tuple(self._path)), found, expected))


def _field(path: Path) -> str:
    return dotted(path).removeprefix(".") or SYNTAX
