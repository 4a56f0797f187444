"""YAML text as a tree of plain values in which every value and every key knows its line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from circinus.spec.faults import Path


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
