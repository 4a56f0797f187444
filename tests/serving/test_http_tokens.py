"""Tokens from files and the environment, and what is kept of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from circinus.errors import ServingError
from circinus.serving.http_answers import HttpRefusalError
from circinus.serving.http_tokens import ENVIRONMENT_VARIABLE, HttpTokens, may_use
from raised import raises_code

TOKEN = "dGhpcyBpcyBub3QgYSBzZWNyZXQ="


def file_of(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "tokens"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def tenants(tokens: HttpTokens, token: str) -> frozenset[str]:
    return tokens.tenants({"authorization": f"Bearer {token}"})


def test_a_file_gives_each_tenant_its_tokens(tmp_path: Path) -> None:
    tokens = HttpTokens.read(file_of(tmp_path, f"# of the shop\n\nacme  {TOKEN}\n* {TOKEN}\nward {'w' * 16}\n"))
    assert tenants(tokens, TOKEN) == {"acme", "*"}
    assert tenants(tokens, "w" * 16) == {"ward"}
    with pytest.raises(HttpRefusalError):
        tenants(tokens, "w" * 17)
    assert [may_use(frozenset(valid), owner) for valid, owner in (("*", ""), ("*", "a"), ("a", "a"), ("a", ""))] == [
        True,
        True,
        True,
        False,
    ]


def test_only_hashes_are_kept(tmp_path: Path) -> None:
    tokens = HttpTokens.read(file_of(tmp_path, f"acme {TOKEN}\n"))
    assert TOKEN not in repr(tokens) + tokens.text
    assert HttpTokens.parse(tokens.text, "saved") == tokens
    with pytest.raises(HttpRefusalError):
        tenants(tokens, tokens.hashes[0][1])


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o611])
def test_a_file_that_others_may_use_is_refused(mode: int, tmp_path: Path) -> None:
    with raises_code(ServingError, "http.unsafe_tokens") as caught:
        HttpTokens.read(file_of(tmp_path, f"* {TOKEN}", mode))
    assert f"{mode:04o}" in str(caught.value)


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file_of(tmp_path, f"* {TOKEN}")
    if os.geteuid() == 0:
        os.chown(path, 12345, 12345)
    else:
        monkeypatch.setattr("os.geteuid", lambda: 12345)
    with raises_code(ServingError, "http.unsafe_tokens"):
        HttpTokens.read(path)


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("acme short", 2),
        (f"acme {TOKEN} {TOKEN}", 2),
        (TOKEN, 2),
        (f"ac/me {TOKEN}", 2),
        (f"acme sha256:{'0' * 63}", 2),
        (f"acme {TOKEN}\x00", 2),
        (f"acme Bearer:{TOKEN}", 2),
    ],
)
def test_a_malformed_line_is_named_without_its_token(line: str, number: int, tmp_path: Path) -> None:
    path = file_of(tmp_path, f"# comment\n{line}\n")
    with raises_code(ServingError, "http.invalid_tokens") as caught:
        HttpTokens.read(path)
    assert caught.value.location == f"{path}:{number}"
    assert TOKEN not in str(caught.value)
    assert TOKEN not in repr(caught.value.__dict__)


@pytest.mark.parametrize("text", ["", "\n# nothing\n"])
def test_no_token_is_an_error_not_an_open_door(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with raises_code(ServingError, "http.invalid_tokens"):
        HttpTokens.read(file_of(tmp_path, text))
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, text)
    with raises_code(ServingError, "http.invalid_tokens"):
        HttpTokens.given(None)


def test_what_is_no_file_of_tokens_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    secret = file_of(tmp_path, f"* {TOKEN}é")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "missing", secret, Path("/dev/zero")):
        with raises_code(ServingError, "http.unreadable_tokens") as caught:
            HttpTokens.read(path)
        assert caught.value.location == str(path)
        assert TOKEN not in str(caught.value)


def test_a_file_goes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    assert HttpTokens.given(None) is None
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, f"acme {'e' * 16}\n* {TOKEN}")
    from_environment = HttpTokens.given(None)
    assert from_environment is not None
    assert [tenant for tenant, _ in from_environment.hashes] == ["acme", "*"]
    from_file = HttpTokens.given(file_of(tmp_path, f"ward {TOKEN}"))
    assert from_file is not None
    assert [tenant for tenant, _ in from_file.hashes] == ["ward"]
