"""Golden messages: the whole text of some messages that users meet often, kept in one file."""

from __future__ import annotations

import json
import os
from pathlib import Path

_FILE = Path(__file__).with_name("golden_messages.json")


def check_message(key: str, text: str) -> None:
    """Compare `text` with the golden message `key`; with CIRCINUS_UPDATE_GOLDEN=1, record it."""
    messages = json.loads(_FILE.read_text(encoding="utf-8")) if _FILE.exists() else {}
    if os.environ.get("CIRCINUS_UPDATE_GOLDEN"):
        messages[key] = text
        _FILE.write_text(json.dumps(dict(sorted(messages.items())), indent=1) + "\n", encoding="utf-8")
    assert messages.get(key) == text


def check_screen(name: str, text: str) -> None:
    """Compare `text` with the golden screen `name`, a text file; with CIRCINUS_UPDATE_GOLDEN=1, record it."""
    file = _FILE.with_name("golden_screens") / f"{name}.txt"
    screen = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    if os.environ.get("CIRCINUS_UPDATE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(screen, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == screen
