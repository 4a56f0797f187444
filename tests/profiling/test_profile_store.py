"""The store: whole transactions or none, one writer at a time, and no other database taken for it."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from circinus.errors import ProfileError
from circinus.profiling.store.migrations import SCHEMA_VERSION
from circinus.profiling.store.profile_store import ProfileStore
from golden import check_message
from raised import raises_code


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "folder" / "profiles.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[ProfileStore]:
    with ProfileStore(path, create=True) as opened:
        yield opened


def test_it_is_made_with_its_folders_and_found_again(path: Path) -> None:
    with ProfileStore(path, create=True) as store, store.transaction():
        numbers = store.ids(["one", "two", "one"])
    assert set(numbers) == {"one", "two"}
    with ProfileStore(path, create=True) as store:
        assert store.existing_ids(["two", "three"]) == {"two": numbers["two"]}
        assert store.rows("PRAGMA journal_mode") == [("wal",)]
    with ProfileStore(path) as store:
        assert store.existing_ids(["one"]) == {"one": numbers["one"]}


def test_reading_makes_no_file(path: Path) -> None:
    with raises_code(ProfileError, "store.missing") as caught:
        ProfileStore(path)
    assert caught.value.location == str(path)
    check_message("profiling/store_missing", str(caught.value).replace(str(path), "profiles.sqlite"))
    assert not path.parent.exists()


def test_a_later_schema_is_refused_before_it_is_checked_or_changed(path: Path) -> None:
    ProfileStore(path, create=True).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        connection.execute("CREATE TABLE later (x CHECK (x))")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("INSERT INTO later VALUES (0)")  # a fault that `integrity_check` finds
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    before = path.read_bytes()
    for create in (True, False):
        with raises_code(ProfileError, "store.newer_schema") as caught:
            ProfileStore(path, create=create)
        assert f"{SCHEMA_VERSION + 1}, expected at most {SCHEMA_VERSION}" in caught.value.message
    assert path.read_bytes() == before


def test_a_store_that_a_later_version_has_migrated_is_not_written_to(path: Path, store: ProfileStore) -> None:
    with store.transaction():
        store.ids(["before"])
    with closing(sqlite3.connect(path)) as later:
        later.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with raises_code(ProfileError, "store.newer_schema"), store.transaction():
        store.ids(["after"])
    assert store.existing_ids(["before", "after"]).keys() == {"before"}


def test_another_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE other (x)")
    connection.close()
    before = path.read_bytes()
    for create in (True, False):
        with raises_code(ProfileError, "store.wrong_kind"):
            ProfileStore(path, create=create)
    assert path.read_bytes() == before


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.sqlite"
    path.write_text("this is a text of some length, and no database at all\n" * 20, encoding="utf-8")
    with raises_code(ProfileError, "store.damaged"):
        ProfileStore(path, create=True)


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with raises_code(ProfileError, "store.inaccessible"):
        ProfileStore(tmp_path / "file" / "profiles.sqlite", create=True)


def test_an_error_inside_a_transaction_leaves_nothing(store: ProfileStore) -> None:
    def write_half() -> None:
        with store.transaction():
            store.ids(["half"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert store.existing_ids(["half"]) == {}
    with store.transaction():
        store.ids(["whole"])
    assert set(store.existing_ids(["half", "whole"])) == {"whole"}


def test_a_second_writer_waits_then_is_told_who_writes_and_readers_do_not_wait(path: Path, store: ProfileStore) -> None:
    with ProfileStore(path, busy_s=0.05) as second:
        with store.transaction():
            store.ids(["first"])
            assert second.existing_ids(["first"]) == {}
            with raises_code(ProfileError, "store.busy") as caught, second.transaction():
                pass
            holder = rf"process {os.getpid()} on \S+ \(.*\), since \S+ was writing"
            assert re.search(holder, caught.value.message)
        with second.transaction():
            assert set(second.ids(["first", "second"])) == {"first", "second"}


HOLDER = """
import sys
from pathlib import Path
from circinus.profiling.store.profile_store import ProfileStore
store = ProfileStore(Path(sys.argv[1]), create=True)
with store.transaction():
    store.ids(["lost"])
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_a_holder_is_named_and_leaves_nothing_behind_when_it_is_killed(path: Path, store: ProfileStore) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), "an argument"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "writing\n"
    with ProfileStore(path, busy_s=0.05) as second:
        with raises_code(ProfileError, "store.busy") as caught, second.transaction():
            pass
        assert re.search(rf"process {holder.pid} on .*an argument", caught.value.message)
        holder.kill()
        holder.communicate()
        with second.transaction():
            assert set(second.ids(["next"])) == {"next"}
        assert second.existing_ids(["lost"]) == {}


def test_another_program_that_writes_is_waited_for_too(path: Path, store: ProfileStore) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with ProfileStore(path, busy_s=0.05) as second:
        with raises_code(ProfileError, "store.busy") as caught, second.transaction():
            pass
        assert "another process" in caught.value.message
        other.execute("ROLLBACK")
        with second.transaction():
            second.ids(["now"])
    other.close()


@pytest.mark.slow
def test_many_processes_make_and_write_it_at_once(path: Path) -> None:
    program = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        from circinus.profiling.store.profile_store import ProfileStore
        with ProfileStore(Path({str(path)!r}), create=True) as store:
            for i in range(20):
                with store.transaction():
                    store.ids([f"shared {{i}}", f"{{sys.argv[1]}} {{i}}"])
    """)
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(k)], stderr=subprocess.PIPE, text=True) for k in range(4)
    ]
    for writer in writers:
        _, said = writer.communicate()
        assert writer.returncode == 0, said
    with ProfileStore(path) as store:
        assert store.rows("SELECT count(*) FROM address") == [(5 * 20,)]


@pytest.mark.slow
def test_a_writer_that_is_killed_leaves_nothing_half_written(path: Path) -> None:
    program = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from circinus.profiling.store.profile_store import ProfileStore
        store = ProfileStore(Path({str(path)!r}), create=True)
        with store.transaction():
            store.ids(["committed"])
        with store.transaction():
            store.ids(["lost"])
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    ended = subprocess.run([sys.executable, "-c", program], check=False)
    assert ended.returncode == -signal.SIGKILL
    with ProfileStore(path) as store, store.transaction():
        assert set(store.existing_ids(["committed", "lost"])) == {"committed"}
        store.ids(["next"])
    assert os.path.exists(path)


def test_its_files_are_closed_to_other_users(path: Path) -> None:
    before = os.umask(0o022)
    try:
        with ProfileStore(path, create=True) as store, store.transaction():
            store.ids(["one"])
            modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == {f"profiles.sqlite{end}": 0o600 for end in ("", "-wal", "-shm", "-writer")}
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("end", "link"),
    [
        ("-writer", os.symlink),
        ("-writer", os.link),
        ("-wal", os.symlink),
        ("-shm", os.symlink),
        ("-journal", os.symlink),
    ],
)
def test_links_in_place_of_its_files_are_not_written_to(
    path: Path, tmp_path: Path, end: str, link: Callable[[Path, Path], None]
) -> None:
    ProfileStore(path, create=True).close()
    target = tmp_path / "target"
    target.write_bytes(b"content " * 1000)
    file = path.with_name(path.name + end)
    file.unlink(missing_ok=True)
    link(target, file)
    with suppress(ProfileError), ProfileStore(path, create=True) as store, store.transaction():
        store.ids(["one"])
    assert target.read_bytes() == b"content " * 1000


def test_a_file_system_without_modes_and_owners_has_stores(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fstat = os.fstat

    def of_every_user(descriptor: int) -> os.stat_result:
        fields = list(fstat(descriptor))
        fields[stat.ST_MODE] |= 0o777
        fields[stat.ST_UID] = os.geteuid() + 1
        return os.stat_result(fields)

    monkeypatch.setattr(os, "fstat", of_every_user)
    with ProfileStore(path, create=True) as store, store.transaction():
        assert store.ids(["one"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_users_of_a_store_share_its_lock(path: Path) -> None:
    ProfileStore(path, create=True).close()
    lock = path.with_name(f"{path.name}-writer")
    lock.chmod(0o660)
    os.chown(lock, 1, 1)
    with ProfileStore(path) as store, store.transaction():
        assert store.ids(["one"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link away")
def test_a_link_of_another_user_is_no_store(path: Path, tmp_path: Path) -> None:
    ProfileStore(path, create=True).close()
    link = tmp_path / "link.sqlite"
    link.symlink_to(path)
    ProfileStore(link).close()
    os.chown(link, 1, 1, follow_symlinks=False)
    with raises_code(ProfileError, "store.inaccessible"):
        ProfileStore(link)
