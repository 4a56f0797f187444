"""YAML reader: anchors, merge keys, and text that is not YAML."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml.reader import Reader

from circinus.specification.yaml.reader import YamlNode, read_yaml


def _values(text: str) -> list[Any]:
    trees, faults = read_yaml(text, "file")
    assert not faults
    return [tree.value for tree in trees]


def _faults(text: str) -> list[tuple[int, str, str]]:
    return [(fault.line, fault.field, fault.found) for fault in read_yaml(text, "file")[1]]


def test_scalars_are_those_of_yaml_1_2() -> None:
    text = "[1, 1.5, true, null, yes, on, 2024-01-01, 0x10, 1e3, '1', .inf, 1:30]"
    assert _values(text) == [[1, 1.5, True, None, "yes", "on", "2024-01-01", 16, 1000.0, "1", float("inf"), "1:30"]]


def test_keys_are_text() -> None:
    assert _values("{1: a, true: b, null: c}") == [{"1": "a", "true": "b", "null": "c"}]


def test_anchors_and_merge_keys_are_resolved_with_the_lines_of_what_they_name() -> None:
    text = "base: &base\n  a: 1\n  b: 2\nmore: &more {c: 3}\nuse:\n  <<: [*base, *more]\n  b: 4\nagain: *base\n"
    (tree,), faults = read_yaml(text, "file")
    assert not faults
    assert tree.value["use"] == {"b": 4, "a": 1, "c": 3}
    assert tree.value["again"] == {"a": 1, "b": 2}
    assert [tree.locate(("use", key))[0] for key in "abc"] == [2, 7, 4]


def test_documents_have_lines_of_the_whole_text_and_empty_ones_are_passed_over() -> None:
    trees, faults = read_yaml("---\n---\na: 1\n---\n# nothing\n---\nb: 2\n", "file")
    assert not faults
    assert [(tree.value, tree.line) for tree in trees] == [({"a": 1}, 3), ({"b": 2}, 7)]


def test_reading_goes_on_behind_each_broken_document() -> None:
    text = "a: 1\n---\nb: [1,\n---\nc: 2\n---\n'd\n---\ne: 3\n---\n\tf\n"
    trees, _ = read_yaml(text, "file")
    assert [(tree.value, tree.line) for tree in trees] == [({"a": 1}, 1), ({"c": 2}, 5), ({"e": 3}, 9)]
    assert [line for line, _, _ in _faults(text)] == [4, 8, 11]


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("a: 1\nb: 2\na: 3\na: 4\n", [(3, "a", "a again (first on line 1)"), (4, "a", "a again (first on line 1)")]),
        ("x:\n  - {a: 1, a: 2}\n", [(2, "x[0].a", "a again (first on line 2)")]),
        ("a: &a [1, *a]\n", [(1, "a[1]", "an anchor inside itself")]),
        ("a: !!set {b, c}\n", [(1, "a", "the tag tag:yaml.org,2002:set")]),
        ("a: !!int no\n", [(1, "a", "'no'")]),
        ('a: "\\ud800"\n', [(1, "a", "'\\ud800' with an unpaired surrogate")]),
        ("a: *b\n", [(1, "(YAML)", "undefined alias 'b'")]),
        ("a: \x00\n", [(1, "(YAML)", "the character U+0000")]),
        ("%YAML 3.0\n---\na: 1\n", [(1, "(YAML)", "incompatible YAML document (version 1.* is required)")]),
        ("[" * 1000, [(1, "(YAML)", "a nesting too deep to be read")]),
    ],
)  # fmt: skip
def test_faults_have_their_line_and_field(text: str, faults: list[tuple[int, str, str]]) -> None:
    assert _faults(text) == faults


def test_values_of_aliases_count_each_time() -> None:
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 30))
    trees, faults = read_yaml(f"l0: &l0 [x]\n{levels}\n---\na: 1\n", "file")
    assert not trees
    assert [(fault.line, fault.field, fault.expected) for fault in faults] == [(6, "(YAML)", "at most 50,000 values")]


@given(st.text(alphabet=st.sampled_from(list("ab:-[]{}&*!|>'\"%@`#,? \n\t---")), max_size=60))
def test_any_text_is_read_or_told_what_is_wrong(text: str) -> None:
    trees, faults = read_yaml(text, "file")
    assert all(isinstance(tree, YamlNode) for tree in trees)
    assert all(1 <= fault.line <= text.count("\n") + 2 for fault in faults)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63) + 1, 2**63 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(max_codepoint=126), max_size=5),
        lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text("abc", min_size=1), values, max_size=3),
        max_leaves=12,
    ).filter(lambda value: value is not None)
)
def test_json_is_read_as_what_it_says(value: Any) -> None:
    assert _values(json.dumps(value)) == [value]


def test_an_anchor_may_be_defined_again(recwarn: pytest.WarningsRecorder) -> None:
    assert _values("a: &x 1\nb: *x\nc: &x 2\nd: *x\n") == [{"a": 1, "b": 1, "c": 2, "d": 2}]
    assert not list(recwarn)


def test_each_part_of_a_text_with_many_faults_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []
    forward = Reader.forward

    def counted(reader: Reader, length: int = 1) -> None:
        lengths.append(length)
        forward(reader, length)

    monkeypatch.setattr(Reader, "forward", counted)
    text = "\n" * 1_000 + "---\n[\n" * 1_000
    _, faults = read_yaml(text, "file")
    assert [fault.line for fault in faults] == [1_003 + 2 * number for number in range(20)]
    assert sum(lengths) < len(text)
