"""The operations of a jail: what they give back, what they keep, and what they refuse."""

from __future__ import annotations

import dataclasses
import errno
import gc
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path

import pytest

from fsjail import (
    Change,
    Entry,
    Jail,
    LimitExceeded,
    Limits,
    NotRegularFile,
    OutOfBounds,
    Policy,
    PolicyDenied,
    Rules,
    TrashError,
    _selftest,
)
from fsjail._errors import InvalidName, Moved
from fsjail._root import Root, reopen

OPEN = Policy(write=Rules(allow=["*"]))
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")


@pytest.fixture
def root(base) -> Path:
    return base / "root"


@pytest.fixture
def make(root, tmp_path):
    """A maker of jails on the root; they are closed at the end."""
    made: list[Jail] = []

    def make_jail(policy: Policy = OPEN, **options) -> Jail:
        options.setdefault("state", tmp_path / "state")
        made.append(Jail(root, policy, **options))
        return made[-1]

    yield make_jail
    for each in made:
        each.close()


@pytest.fixture
def jail(make) -> Jail:
    return make()


def tree(folder: Path) -> dict[str, str | None]:
    """Names below a folder with their text, without the jail's own."""
    return {
        str(path.relative_to(folder)): (
            os.readlink(path) if path.is_symlink() else path.read_bytes().decode() if path.is_file() else None
        )
        for path in sorted(folder.rglob("*"))
        if ".fsjail" not in path.relative_to(folder).parts
    }


def refuse(monkeypatch, name: str, code: int, *, when=lambda *_args, **_kwargs: True) -> None:
    """Let a function answer with an errno, in `os` or wherever the package has imported it."""
    places = [os] if hasattr(os, name) else []
    places += [mod for key, mod in sys.modules.items() if key.startswith("fsjail.") and name in vars(mod)]
    for place in places:
        real = getattr(place, name)

        def fake(*args, real=real, **kwargs):
            if when(*args, **kwargs):
                raise OSError(code, os.strerror(code))
            return real(*args, **kwargs)

        monkeypatch.setattr(place, name, fake)


# ── reading ────────────────────────────────────────────────────────────────────────────────────


def test_read_ranges(jail, root):
    (root / "f").write_bytes(b"0123456789")
    assert jail.read_bytes("f") == b"0123456789"
    assert jail.read_bytes("f", offset=3) == b"3456789"
    assert jail.read_bytes("f", offset=3, limit=2) == b"34"
    assert jail.read_bytes("f", offset=8, limit=9) == b"89"
    assert jail.read_bytes("f", offset=10) == b""
    assert jail.read_bytes("f", offset=99, limit=1) == b""
    assert jail.read_bytes("f", limit=0) == b""
    for wrong in ({"offset": -1}, {"limit": -1}):
        with pytest.raises(ValueError, match="negative"):
            jail.read_bytes("f", **wrong)


def test_read_the_empty_file_and_a_big_one(jail, root):
    (root / "empty").write_bytes(b"")
    data = os.urandom(3 << 20)
    (root / "big").write_bytes(data)
    assert jail.read_bytes("empty") == b""
    assert jail.read_text("empty") == ""
    assert jail.read_lines("empty") == []
    assert jail.read_bytes("big") == data


def test_a_read_that_the_system_cuts_short(jail, root, monkeypatch):
    (root / "f").write_bytes(b"0123456789")
    real = os.read
    monkeypatch.setattr(os, "read", lambda fd, size: real(fd, min(size, 3)))
    assert jail.read_bytes("f") == b"0123456789"
    assert jail.read_bytes("f", offset=1, limit=8) == b"12345678"


def test_a_file_that_grows_over_the_limit_while_it_is_read(make, root, monkeypatch):
    (root / "f").write_bytes(b"01234")
    jail = make(limits=Limits(max_read_bytes=6))
    real = os.read
    grown: list[int] = []

    def grow(fd, size):
        if not grown:
            grown.append(1)
            with (root / "f").open("ab") as stream:
                stream.write(b"56789")
        return real(fd, size)

    monkeypatch.setattr(os, "read", grow)
    with pytest.raises(LimitExceeded):
        jail.read_bytes("f")


def test_newlines_come_as_they_are(jail, root):
    (root / "f").write_bytes(b"a\r\nb\nc\rd")
    assert jail.read_text("f") == "a\r\nb\nc\rd"
    assert jail.read_lines("f") == ["a", "b", "c\rd"]
    jail.write_text("g", "x\r\ny\n")
    assert (root / "g").read_bytes() == b"x\r\ny\n"
    jail.append_text("g", "z\r\n")
    assert (root / "g").read_bytes() == b"x\r\ny\nz\r\n"


def test_encodings(jail, root):
    jail.write_text("f", "é\n", encoding="latin-1")
    assert (root / "f").read_bytes() == b"\xe9\n"
    assert jail.read_text("f", encoding="latin-1") == "é\n"
    assert jail.read_lines("f", encoding="latin-1") == ["é"]
    with pytest.raises(UnicodeDecodeError):
        jail.read_text("f")
    with pytest.raises(UnicodeDecodeError):
        jail.read_lines("f")


def test_lines_of_a_wide_encoding(jail):
    jail.write_text("f", "x\ny\n", encoding="utf-16")
    assert jail.read_lines("f", encoding="utf-16") == ["x", "y"]


def test_a_binary_file_is_no_text(jail, root):
    (root / "b").write_bytes(b"\x7fELF\x00\x01\xf0\x02")
    with pytest.raises(UnicodeDecodeError):
        jail.read_text("b")
    assert jail.read_bytes("b") == b"\x7fELF\x00\x01\xf0\x02"


def test_read_lines(jail, root):
    (root / "f").write_text("".join(f"line {number}\n" for number in range(1, 11)) + "end")
    assert jail.read_lines("f", 1, 2) == ["line 1", "line 2"]
    assert jail.read_lines("f", 9) == ["line 9", "line 10", "end"]
    assert jail.read_lines("f", 11, 5) == ["end"]
    assert jail.read_lines("f", 12) == []
    assert jail.read_lines("f", 3, 0) == []
    for wrong in ((0,), (1, -1)):
        with pytest.raises(ValueError, match="start"):
            jail.read_lines("f", *wrong)


def test_read_lines_reads_no_further_than_wanted(make, root):
    (root / "f").write_bytes(b"a\nb\n" + b"x" * 5000 + b"\nlast\n")
    jail = make(limits=Limits(max_read_bytes=100))
    assert jail.read_lines("f", 1, 2) == ["a", "b"]
    assert jail.read_lines("f", 4) == ["last"]  # a long line before it counts as one line
    with pytest.raises(LimitExceeded):
        jail.read_lines("f", 3, 1)
    with pytest.raises(LimitExceeded):
        jail.read_lines("f")
    assert make(limits=Limits(max_read_bytes=None)).read_lines("f", 4) == ["last"]


@pytest.mark.parametrize("call", ["read_bytes", "read_text", "read_lines", "open"])
def test_the_read_limit_holds_before_a_byte_is_read(call, make, root, monkeypatch):
    with (root / "f").open("wb") as stream:
        stream.truncate(200 << 20)
    jail = make(limits=Limits(max_read_bytes=1000))
    if call != "read_lines":  # a range of lines has to look for their ends
        monkeypatch.setattr(os, "read", lambda *_: pytest.fail("read"))
    with pytest.raises(LimitExceeded) as caught:
        getattr(jail, call)("f")
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == "f"
    monkeypatch.undo()
    assert jail.read_bytes("f", offset=5, limit=1000) == bytes(1000)


@pytest.mark.parametrize("mode", ["r+", "rb+", "a+"])
def test_no_mode_reads_over_the_limit(mode, make, root):
    (root / "f").write_text("0123456789")
    jail = make(limits=Limits(max_read_bytes=3))
    with pytest.raises(LimitExceeded), jail.open("f", mode) as file:
        file.seek(0)
        file.read()


def test_no_limits(make, root):
    (root / "f").write_text("0123456789")
    jail = make(limits=Limits(None, None, None, None, None))
    assert jail.read_text("f") == "0123456789"
    with jail.open("f") as file:
        assert file.read() == "0123456789"
    assert len(jail.listdir()) == 1
    assert jail.glob("*") == ["f"]
    assert len(list(jail.grep("0"))) == 1


def test_stat_and_kinds(jail, root):
    (root / "f").write_text("abc")
    (root / "d").mkdir()
    (root / "l").symlink_to("f")
    (root / "ld").symlink_to("d")
    (root / "dangling").symlink_to("nothing")
    (root / "loop").symlink_to("loop")
    assert jail.stat("f").st_size == 3
    assert stat.S_ISREG(jail.stat("l").st_mode)
    assert stat.S_ISLNK(jail.stat("l", follow_symlinks=False).st_mode)
    assert stat.S_ISDIR(jail.stat(".").st_mode)
    assert all(jail.exists(name) for name in ("f", "d", "l"))
    assert not any(jail.exists(name) for name in ("dangling", "loop", "f/x", "no", "x" * 300, ""))
    assert jail.is_file("l")
    assert not jail.is_file("ld")
    assert jail.is_dir("ld")
    assert not jail.is_dir("no")
    assert not jail.exists("../outside/secret")
    with pytest.raises(FileNotFoundError) as caught:
        jail.stat("no")
    assert caught.value.filename == "no"


def test_asking_for_a_name_raises_what_is_no_answer(jail, root, monkeypatch):
    (root / "f").write_text("x")
    monkeypatch.setattr(
        jail._root, "resolve", lambda *_a, **_k: (_ for _ in ()).throw(OSError(errno.EIO, "io"))
    )
    with pytest.raises(OSError, match="io"):
        jail.exists("f")


def test_the_log_can_hold_reads(make, root):
    (root / "f").write_text("x")
    jail = make(record="all")
    jail.read_text("f")
    jail.listdir()
    assert [event.op for event in jail.audit.events()] == ["read", "list"]


# ── open ───────────────────────────────────────────────────────────────────────────────────────


def test_open_for_reading(jail, root):
    (root / "f").write_bytes(b"a\r\nb\n")
    with jail.open("f") as file:
        assert file.read() == "a\nb\n"  # as the built-in open does
    with jail.open("f", newline="") as file:
        assert file.read() == "a\r\nb\n"
    with jail.open("f", "rb") as file:
        assert file.read() == b"a\r\nb\n"
        assert not file.writable()
    with pytest.raises(IsADirectoryError):
        jail.open(".")
    with pytest.raises(FileNotFoundError):
        jail.open("no")
    with pytest.raises(LookupError):
        jail.open("f", encoding="no such")


@pytest.mark.parametrize(
    ("mode", "before", "after"),
    [
        ("w", None, "new"),
        ("w", "old text", "new"),
        ("x", None, "new"),
        ("a", None, "new"),
        ("a", "old ", "old new"),
        ("r+", "old text", "new text"),
        ("w+", "old text", "new"),
        ("a+", "old ", "old new"),
        ("x+", None, "new"),
    ],
)
@pytest.mark.parametrize("binary", [False, True])
def test_open_modes_as_the_built_in_open(mode, before, after, binary, jail, root, tmp_path):
    twin = tmp_path / "twin"
    for path in (root / "f", twin):
        if before is not None:
            path.write_text(before)
    data = b"new" if binary else "new"
    mode = mode + "b" if binary else mode
    with jail.open("f", mode) as file:
        assert file.write(data) == 3
        assert (root / "f").exists() == (before is not None)
        if before is not None:
            assert (root / "f").read_text() == before, "written before it was closed"
    with open(twin, mode) as file:
        file.write(data)
    assert (root / "f").read_text() == twin.read_text() == after
    saved = [Path(root / ".fsjail/Trash/files" / item.id).read_text() for item in jail.trash.items()]
    assert saved == ([] if before is None else [before])
    [event] = jail.audit.events()
    assert (event.op, event.decision) == ("write", "allow")


def test_open_plus_modes_read_and_seek(jail, root):
    (root / "f").write_text("0123456789")
    with jail.open("f", "r+") as file:
        assert file.read(3) == "012"
        file.seek(0)
        file.write("ab")
        file.seek(0)
        assert file.read() == "ab23456789"
    assert (root / "f").read_text() == "ab23456789"
    with jail.open("f", "rb+") as file:
        file.truncate(4)
    assert (root / "f").read_text() == "ab23"
    with jail.open("f", "a+") as file:
        file.seek(0)
        assert file.read() == "ab23"


@pytest.mark.parametrize("mode", ["x", "x+", "xb"])
def test_open_exclusive(mode, jail, root):
    (root / "f").write_text("old")
    with pytest.raises(FileExistsError):
        jail.open("f", mode)
    assert (root / "f").read_text() == "old"


def test_exclusive_still_holds_when_the_file_is_closed(jail, root):
    with pytest.raises(FileExistsError), jail.open("n", "x") as file:
        file.write("mine")
        (root / "n").write_text("theirs")
    assert (root / "n").read_text() == "theirs"


def test_open_r_plus_needs_a_file(jail, root):
    (root / "d").mkdir()
    with pytest.raises(FileNotFoundError):
        jail.open("no", "r+")
    with pytest.raises(IsADirectoryError):
        jail.open("d", "r+")
    with pytest.raises(OutOfBounds):
        jail.open(".", "r+")


def test_an_exception_in_the_block_discards(jail, root):
    (root / "f").write_text("old")
    for mode in ("w", "wb", "r+b", "a"):
        with pytest.raises(RuntimeError), jail.open("f", mode) as file:
            file.write(b"half" if "b" in mode else "half")
            raise RuntimeError
        assert (root / "f").read_text() == "old"
    assert jail.trash.items() == []
    assert list(jail.audit.events()) == []


def _forget(files: list[object]) -> None:
    files.clear()
    gc.collect()


def test_a_file_that_is_forgotten_is_discarded(jail, root):
    (root / "f").write_text("old")
    for mode in ("w", "w+b", "ab"):
        file = jail.open("f", mode)
        file.write(b"half" if "b" in mode else "half")
        forgotten = [file]
        del file
        with pytest.warns(ResourceWarning, match="never closed"):
            _forget(forgotten)
        assert (root / "f").read_text() == "old"


@pytest.mark.parametrize(
    "options", [{"encoding": "no such"}, {"newline": "q"}, {"mode": "w+", "encoding": "no"}]
)
def test_an_open_that_fails_changes_nothing(options, jail, root):
    (root / "f").write_text("old")
    mode = options.pop("mode", "w")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        with pytest.raises((LookupError, ValueError)):
            jail.open("f", mode, **options)
        gc.collect()
    assert (root / "f").read_text() == "old"
    assert jail.trash.items() == []


@pytest.mark.parametrize("mode", ["", "b", "rw", "rt+b", "q", "wbb", "ww"])
def test_modes_that_cannot_be(mode, jail, root):
    (root / "f").write_text("old")
    with pytest.raises(ValueError, match="mode"):
        jail.open("f", mode)
    assert (root / "f").read_text() == "old"


def test_a_limit_while_writing_discards(make, root):
    jail = make(limits=Limits(max_write_bytes=5))
    (root / "f").write_text("old")
    with pytest.raises(LimitExceeded), jail.open("f", "w") as file:
        file.write("123456789")
        file.flush()
    assert (root / "f").read_text() == "old"
    with pytest.raises(LimitExceeded), jail.open("f", "wb") as file:
        file.truncate(100)
    assert (root / "f").read_text() == "old"


def test_closing_twice_commits_once(jail, root):
    file = jail.open("f", "w")
    file.write("x")
    file.close()
    file.close()
    assert len(list(jail.audit.events())) == 1
    assert (root / "f").read_text() == "x"


def test_a_name_that_is_swapped_while_a_file_is_written(jail, root):
    """The content goes where the name leads when it is closed, and nothing is lost."""
    (root / "f").write_text("old")
    with jail.open("f", "w") as file:
        file.write("new")
        (root / "other").write_text("other")
        os.replace(root / "other", root / "f")
    assert (root / "f").read_text() == "new"
    [item] = jail.trash.items()
    assert (root / ".fsjail/Trash/files" / item.id).read_text() == "other"


def test_a_name_that_is_swapped_between_judging_and_committing(jail, root, monkeypatch):
    (root / "f").write_text("old")
    real = os.link
    swapped: list[int] = []

    def link(*args, **kwargs):
        if not swapped:
            swapped.append(1)
            (root / "other").write_text("other")
            os.replace(root / "other", root / "f")
        return real(*args, **kwargs)

    monkeypatch.setattr(os, "link", link)
    with jail.open("f", "w") as file:
        file.write("new")
    assert (root / "f").read_text() == "new"
    kept = {(root / ".fsjail/Trash/files" / item.id).read_text() for item in jail.trash.items()}
    assert "other" in kept
    assert os.listdir(root / ".fsjail/stage") == []


# ── writing ────────────────────────────────────────────────────────────────────────────────────


def test_write_gives_a_change(jail, root):
    change = jail.write_text("f", "one")
    assert change == Change("write", "f", None, None, None, change.seq)
    assert isinstance(change.seq, int)
    again = jail.write_bytes("./f", b"two")
    assert again.path == "f"
    assert again.saved is not None
    assert (again.saved.path, again.saved.why, again.saved.size, again.saved.kind) == (
        "f",
        "overwritten",
        3,
        "file",
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        change.path = "x"  # type: ignore[misc]


def test_write_keeps_mode_owner_and_attributes(jail, root):
    (root / "f").write_text("old")
    os.chmod(root / "f", 0o751)
    with suppress(OSError):
        os.setxattr(root / "f", "user.note", b"hello")
    os.utime(root / "f", (1_000_000_000, 1_000_000_000))
    before = os.stat(root / "f")
    attributes = os.listxattr(root / "f")
    for call in (
        lambda: jail.write_text("f", "new"),
        lambda: jail.append_text("f", "er"),
        lambda: jail.edit("f", "newer", "newest"),
        lambda: jail.open("f", "a").close(),
    ):
        call()
        after = os.stat(root / "f")
        assert stat.S_IMODE(after.st_mode) == 0o751
        assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
        assert os.listxattr(root / "f") == attributes
        assert after.st_mtime_ns > before.st_mtime_ns, "what was written has a new time"
    assert (root / "f").read_text() == "newest"


@needs_root
def test_write_keeps_a_foreign_owner(jail, root):
    (root / "f").write_text("old")
    os.chown(root / "f", 12345, 23456)
    os.chmod(root / "f", 0o4750)
    jail.write_text("f", "new")
    after = os.stat(root / "f")
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (12345, 23456, 0o750), (
        "not its rights"
    )


def test_a_set_id_bit_does_not_pass_to_another_owner(jail, root, monkeypatch):
    if os.getuid() != 0:
        pytest.skip("only root can give a file away")
    (root / "f").write_text("old")
    os.chown(root / "f", 12345, 23456)
    os.chmod(root / "f", 0o6755)
    refuse(monkeypatch, "fchown", errno.EPERM)
    jail.write_text("f", "new")
    after = os.stat(root / "f")
    assert after.st_uid != 12345
    assert stat.S_IMODE(after.st_mode) == 0o755


def test_a_new_file_gets_the_mode_of_the_umask(jail, root):
    before = os.umask(0o027)
    try:
        jail.write_text("f", "x")
        jail.mkdir("d")
        with jail.open("g", "w") as file:
            file.write("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(root / "f").st_mode) == 0o640
    assert stat.S_IMODE(os.stat(root / "g").st_mode) == 0o640
    assert stat.S_IMODE(os.stat(root / "d").st_mode) == 0o750


def test_write_replaces_the_name_and_keeps_other_links(jail, root):
    (root / "f").write_text("old")
    os.link(root / "f", root / "g")
    jail.write_text("f", "new")
    assert (root / "g").read_text() == "old"
    jail.append_text("g", "er")
    assert (root / "f").read_text() == "new"


def test_write_follows_a_link_that_stays_inside(jail, root):
    (root / "d").mkdir()
    (root / "d/f").write_text("old")
    (root / "l").symlink_to("d/f")
    (root / "new").symlink_to("d/made")
    assert jail.write_text("l", "new").path == "d/f"
    assert (root / "l").is_symlink()
    assert (root / "d/f").read_text() == "new"
    assert jail.write_text("new", "x").path == "d/made"
    assert (root / "d/made").read_text() == "x"


def test_parents(jail, root):
    with pytest.raises(FileNotFoundError) as caught:
        jail.write_text("a/b/f", "x")
    assert caught.value.filename == "a/b/f"
    assert tree(root) == {}
    jail.write_text("a/b/f", "x", parents=True)
    jail.append_text("c/f", "x", parents=True)
    jail.write_text("a/b/f", "y", parents=True)
    assert tree(root) == {"a": None, "a/b": None, "a/b/f": "y", "c": None, "c/f": "x"}
    with pytest.raises(NotADirectoryError):
        jail.write_text("c/f/g/h", "x", parents=True)


def test_parents_are_judged(make, root):
    jail = make(Policy(write=Rules(allow=["/out/"], deny=["/out/no/"])))
    jail.write_text("out/a/f", "x", parents=True)
    for name in ("out/no/f", "other/f", "../outside/new/f"):
        with pytest.raises((PolicyDenied, OutOfBounds)):
            jail.write_text(name, "x", parents=True)
    assert tree(root) == {"out": None, "out/a": None, "out/a/f": "x"}


def test_a_refused_limit_makes_no_parents(make, root):
    jail = make(limits=Limits(max_write_bytes=3))
    with pytest.raises(LimitExceeded):
        jail.write_text("p/q/f", "123456", parents=True)
    assert tree(root) == {}


def test_append(jail, root):
    first = jail.append_text("f", "a\n")
    second = jail.append_text("f", "b\n")
    assert (first.op, first.saved) == ("append", None)
    assert second.saved is not None
    assert second.saved.why == "appended to"
    assert (root / "f").read_text() == "a\nb\n"


def test_write_limits(make, root):
    jail = make(limits=Limits(max_write_bytes=5, max_total_bytes=12))
    jail.write_text("f", "12345")
    for call in (
        lambda: jail.write_text("g", "123456"),
        lambda: jail.append_text("f", "6"),
        lambda: jail.edit("f", "1", "11"),
    ):
        with pytest.raises(LimitExceeded) as caught:
            call()
        assert caught.value.errno == errno.EFBIG
    assert tree(root) == {"f": "12345"}
    jail.write_text("g", "12345")
    with pytest.raises(LimitExceeded) as caught:
        jail.write_text("h", "123")
    assert caught.value.errno == errno.EDQUOT
    jail.write_text("h", "12")
    with pytest.raises(LimitExceeded):
        jail.copy("f", "i")
    assert tree(root) == {"f": "12345", "g": "12345", "h": "12"}


def test_what_was_not_written_does_not_count(make, root):
    jail = make(limits=Limits(max_total_bytes=10))
    for _ in range(5):
        with pytest.raises(FileNotFoundError):
            jail.write_text("no/f", "12345")
        with pytest.raises((NotADirectoryError, IsADirectoryError)):
            jail.write_text("f/", "12345")
    jail.write_text("f", "12345")


@pytest.mark.parametrize("call", ["copy", "write", "edit"])
def test_a_tree_and_a_big_old_file_are_limited_too(call, make, root):
    (root / "d").mkdir()
    (root / "d/f").write_text("x" * 50)
    (root / "big").write_text("x" * 50)
    jail = make(limits=Limits(max_total_bytes=20, max_write_bytes=20))
    with pytest.raises(LimitExceeded):
        if call == "copy":
            jail.copy("d", "e")
        elif call == "write":
            with jail.open("big", "a") as file:
                file.write("x")
        else:
            jail.edit("big", "x", "y", count=50)
    assert tree(root) == {"big": "x" * 50, "d": None, "d/f": "x" * 50}


def test_not_durable_works_the_same(make, root, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _fd: pytest.fail("synced"))
    jail = make(durability="none")
    jail.write_text("f", "1")
    jail.write_text("f", "2")
    jail.copy("f", "g")
    jail.move("g", "f", overwrite=True)
    jail.delete("f")
    assert len(jail.trash.items()) == 3
    with pytest.raises(ValueError, match="durability"):
        make(durability="perhaps")


# ── without what this machine has ──────────────────────────────────────────────────────────────


def lacking(monkeypatch, feature: str) -> None:
    """Take from this process what lesser machines do not have."""
    tmpfile = getattr(os, "O_TMPFILE", 0)
    access, fsync = os.access, os.fsync

    def no_proc(path, *args, **kwargs):
        return "/proc" not in str(path) and access(path, *args, **kwargs)

    def no_folder_sync(fd):
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(fd)

    match feature:
        case "tmpfile":
            monkeypatch.setattr("fsjail._stage._O_TMPFILE", 0)
        case "tmpfile here":
            taken = lambda _p, flags, *_a, **_k: tmpfile and flags & tmpfile == tmpfile  # noqa: E731
            refuse(monkeypatch, "open", errno.EOPNOTSUPP, when=taken)
        case "proc":
            monkeypatch.setattr(os, "access", no_proc)
        case "renameat2":
            refuse(monkeypatch, "renameat2", errno.ENOSYS)
        case "flags":
            refuse(monkeypatch, "renameat2", errno.EINVAL)
        case "links":
            refuse(monkeypatch, "link", errno.EPERM, when=lambda path, *_a, **_k: "/proc/" not in path)
        case "folder sync":
            monkeypatch.setattr(os, "fsync", no_folder_sync)
        case "openat2":
            refuse(monkeypatch, "openat2", errno.ENOSYS)
        case "openat2 allowed":
            refuse(monkeypatch, "openat2", errno.EPERM)
        case _:
            raise AssertionError(feature)


MACHINES = [
    (),
    ("tmpfile",),
    ("tmpfile here",),
    ("proc",),
    ("renameat2",),
    ("flags",),
    ("links",),
    ("tmpfile", "renameat2"),
    ("tmpfile", "links"),
    ("folder sync",),
    ("openat2",),
    ("openat2 allowed",),
]


@pytest.mark.parametrize("lacks", MACHINES, ids="+".join)
@pytest.mark.parametrize("resolver", ["openat2", "walk"])
def test_a_life_on_a_lesser_machine(lacks, resolver, make, root, monkeypatch):
    """The same changes with the same results, whatever the file system and kernel cannot do."""
    monkeypatch.setenv("FSJAIL_RESOLVER", resolver)
    monkeypatch.setattr("fsjail._selftest._answer", list(_selftest._answer))  # ENOSYS is remembered
    jail = make()
    for feature in lacks:
        lacking(monkeypatch, feature)
    jail.write_text("f", "1")
    os.chmod(root / "f", 0o640)
    jail.write_text("f", "2")
    jail.append_text("f", "+")
    jail.edit("f", "2+", "3")
    with jail.open("f", "a") as file:
        file.write("4")
    assert (root / "f").read_text() == "34"
    assert stat.S_IMODE(os.stat(root / "f").st_mode) == 0o640
    jail.mkdir("d")
    jail.copy("f", "d/g")
    jail.copy("d", "e")
    jail.move("e", "h")
    with pytest.raises(FileExistsError):
        jail.move("h", "d")
    jail.write_text("i", "5")
    jail.move("i", "f", overwrite=True)
    jail.move("h", "d", overwrite=True)
    jail.copy("f", "d/g", overwrite=True)
    assert tree(root) == {"d": None, "d/g": "5", "f": "5"}
    jail.delete("d")
    jail.trash.restore(jail.trash.items()[0].id)
    assert tree(root) == {"d": None, "d/g": "5", "f": "5"}
    jail.undo()
    kept = [(root / ".fsjail/Trash/files" / item.id) for item in jail.trash.items()]
    assert sorted(path.read_text() for path in kept if path.is_file()) == ["1", "2", "2+", "3", "34", "34"]
    assert os.listdir(root / ".fsjail/stage") == []
    assert {name.removesuffix(".trashinfo") for name in os.listdir(root / ".fsjail/Trash/info")} == set(
        os.listdir(root / ".fsjail/Trash/files")
    )


@pytest.mark.parametrize("name", ["renameat2", "link"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EROFS])
def test_a_failing_step_changes_nothing(name, code, jail, root, monkeypatch):
    (root / "f").write_text("old")
    (root / "g").write_text("other")
    (root / "d").mkdir()
    jail.delete(jail.write_text("first", "x").path)
    before, items = tree(root), jail.trash.items()
    calls = (
        lambda: jail.write_text("f", "new"),
        lambda: jail.edit("f", "old", "new"),
        lambda: jail.delete("f"),
        lambda: jail.delete("d"),
        lambda: jail.move("g", "f", overwrite=True),
        lambda: jail.move("g", "h"),
        lambda: jail.copy("g", "f", overwrite=True),
        lambda: jail.trash.restore(items[0].id),
        lambda: jail.trash.restore(items[0].id, to="f", overwrite=True),
    )
    for call in calls:
        failed: list[int | None] = []
        with monkeypatch.context() as patch:
            refuse(patch, name, code, when=lambda p, *_a, **_k: "/proc/" not in str(p))
            try:
                call()
            except OSError as error:
                failed.append(error.errno)
        if not failed:  # it does not need the step
            jail.undo()
            items = jail.trash.items()
        assert failed in ([], [code])
        assert tree(root) == before
        assert jail.trash.items() == items
        assert os.listdir(root / ".fsjail/stage") == []


# ── edit ───────────────────────────────────────────────────────────────────────────────────────


def test_edit_gives_a_diff_and_saves(jail, root):
    (root / "f.py").write_text("one\ntwo\nthree\n")
    change = jail.edit("f.py", "two", "2")
    assert (root / "f.py").read_text() == "one\n2\nthree\n"
    assert change.op == "edit"
    assert change.diff == "--- a/f.py\n+++ b/f.py\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n"
    assert change.saved is not None
    assert change.saved.why == "edited"


def test_edit_dry_run_changes_nothing(jail, root):
    (root / "f").write_text("one\n")
    change = jail.edit("f", "one", "two", dry_run=True)
    assert (root / "f").read_text() == "one\n"
    assert "+two" in (change.diff or "")
    assert (change.saved, change.seq) == (None, None)
    assert list(jail.audit.events()) == []
    assert not (root / ".fsjail").exists()


def test_edit_without_a_last_newline(jail, root):
    (root / "f").write_text("one")
    change = jail.edit("f", "one", "two\nthree")
    assert (root / "f").read_text() == "two\nthree"
    assert (change.diff or "").count("\\ No newline at end of file") == 2


@pytest.mark.parametrize(
    ("text", "old", "new", "result"),
    [
        ("a\r\nb\r\nc\r\n", "a\nb", "x\ny\nz", "x\r\ny\r\nz\r\nc\r\n"),
        ("a\r\nb\r\n", "a\r\nb", "x\r\ny", "x\r\ny\r\n"),
        ("a\r\nb\r\n", "a", "x\ny", "x\r\ny\r\nb\r\n"),
        ("a\r\nb\r\n", "b\n", "", "a\r\n"),
        ("a\nb\n", "a\nb", "x", "x\n"),
        ("a\rb", "a", "x", "x\rb"),
        ("a\x0cb\u2028c\n", "b", "x", "a\x0cx\u2028c\n"),
    ],
)
def test_edit_keeps_line_ends(text, old, new, result, jail, root):
    (root / "f").write_bytes(text.encode())
    jail.edit("f", old, new)
    assert (root / "f").read_bytes().decode() == result


@pytest.mark.parametrize(
    ("old", "new", "count", "message"),
    [
        ("zzz", "x", 1, "not found"),
        ("", "x", 1, "empty"),
        ("a", "a", 3, "same"),
        ("a", "x", 0, "at least 1"),
        ("a", "x", 1, r"3 times \(lines 1, 2, 3\)"),
        ("a", "x", 4, r"3 times"),
        ("b", "x", 1, r"7 times \(lines 4, 4, 4, 5, 5, …\)"),
    ],
)
def test_edit_refuses(old, new, count, message, jail, root):
    (root / "f").write_text("a\na\na\nbbb\nbbbb\n")
    before = (root / "f").stat()
    with pytest.raises(ValueError, match=message):
        jail.edit("f", old, new, count=count)
    assert (root / "f").stat() == before
    assert list(jail.audit.events()) == []


def test_edit_several_places(jail, root):
    (root / "f").write_text("a a a")
    jail.edit("f", "a", "b", count=3)
    assert (root / "f").read_text() == "b b b"


def test_edit_refuses_what_it_cannot_decode(jail, root):
    (root / "f").write_bytes(b"caf\xe9 a\n")
    with pytest.raises(UnicodeDecodeError):
        jail.edit("f", "a", "b")
    assert (root / "f").read_bytes() == b"caf\xe9 a\n"
    with pytest.raises(FileNotFoundError):
        jail.edit("no", "a", "b")
    (root / "d").mkdir()
    with pytest.raises(IsADirectoryError):
        jail.edit("d", "a", "b")


def test_edit_keeps_a_byte_order_mark(jail, root):
    (root / "f").write_bytes(b"\xef\xbb\xbfa\n")
    jail.edit("f", "a", "b")
    assert (root / "f").read_bytes() == b"\xef\xbb\xbfb\n"


# ── mkdir ──────────────────────────────────────────────────────────────────────────────────────


def test_mkdir(jail, root):
    change = jail.mkdir("d")
    assert (change.op, change.path) == ("mkdir", "d")
    with pytest.raises(FileExistsError) as caught:
        jail.mkdir("d")
    assert caught.value.filename == "d"
    assert jail.mkdir("d", exist_ok=True).seq is None
    with pytest.raises(FileNotFoundError):
        jail.mkdir("a/b")
    jail.mkdir("a/b/c", parents=True)
    jail.mkdir("a/b/c", parents=True, exist_ok=True)
    jail.mkdir("t/")
    assert sorted(tree(root)) == ["a", "a/b", "a/b/c", "d", "t"]
    (root / "f").write_text("x")
    for exist_ok in (True, False):
        with pytest.raises(FileExistsError):
            jail.mkdir("f", exist_ok=exist_ok)
    with pytest.raises(NotADirectoryError):
        jail.mkdir("f/x/y", parents=True)
    with pytest.raises((FileNotFoundError, InvalidName)):
        jail.mkdir("new/.")
    (root / "l").symlink_to("d")
    assert jail.mkdir("l", exist_ok=True).seq is None
    with pytest.raises(FileExistsError):
        jail.mkdir("l")
    (root / "dangling").symlink_to("nothing")
    with pytest.raises(FileExistsError):
        jail.mkdir("dangling", exist_ok=True)


def test_mkdir_of_what_appears_meanwhile(jail, root, monkeypatch):
    real = os.mkdir

    def mkdir(name, *args, **kwargs):
        if name == "d" and not (root / "d").exists():
            real(root / "d")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(os, "mkdir", mkdir)
    with pytest.raises(FileExistsError):
        jail.mkdir("d")


def test_a_name_that_never_holds_still(jail, root, monkeypatch):
    refuse(monkeypatch, "mkdir", errno.EEXIST, when=lambda name, *_a, **_k: name == "d")
    with pytest.raises(OSError, match="keeps changing") as caught:
        jail.mkdir("d")
    assert caught.value.errno == errno.EAGAIN


def test_mkdir_parents_are_judged_each(make, root):
    jail = make(Policy(write=Rules(allow=["/out/x/"])))
    with pytest.raises(PolicyDenied):
        jail.mkdir("out/x/y", parents=True)
    assert tree(root) == {}


# ── delete ─────────────────────────────────────────────────────────────────────────────────────


def test_delete(jail, root):
    (root / "f").write_text("x")
    (root / "d/e").mkdir(parents=True)
    (root / "d/e/g").write_text("y")
    (root / "l").symlink_to("d")
    (root / "gone").symlink_to("nowhere")
    os.mkfifo(root / "p")
    for name, kind in (("f", "file"), ("l", "link"), ("gone", "link"), ("d", "directory"), ("p", "other")):
        change = jail.delete(name)
        assert (change.op, change.path) == ("delete", name)
        assert change.saved is not None
        assert (change.saved.kind, change.saved.path, change.saved.why) == (kind, name, "deleted")
    assert tree(root) == {}
    with pytest.raises(FileNotFoundError) as caught:
        jail.delete("f")
    assert caught.value.filename == "f"


@pytest.mark.parametrize("name", [".", "", "d/.", "d/..", "..", "d/../.", "l/."])
def test_delete_wants_a_name(name, jail, root):
    (root / "d").mkdir()
    (root / "d/f").write_text("x")
    (root / "l").symlink_to("d")
    before = tree(root)
    with pytest.raises((InvalidName, OutOfBounds)):
        jail.delete(name)
    assert tree(root) == before


def test_delete_of_a_link_with_a_slash(jail, root):
    (root / "d").mkdir()
    (root / "l").symlink_to("d")
    with pytest.raises(NotADirectoryError):
        jail.delete("l/")
    assert sorted(tree(root)) == ["d", "l"]
    jail.delete("d/")


def test_delete_refuses_a_tree_with_a_denied_name(make, root):
    (root / "d/e").mkdir(parents=True)
    (root / "d/e/x.lock").write_text("x")
    jail = make(Policy(write=Rules(allow=["*"], deny=["*.lock"])))
    with pytest.raises(PolicyDenied) as caught:
        jail.delete("d")
    assert caught.value.decision is not None
    assert caught.value.decision.why == "write.deny[0] on d/e/x.lock"
    assert (root / "d/e/x.lock").exists()


# ── copy ───────────────────────────────────────────────────────────────────────────────────────


def test_copy_a_file(jail, root):
    (root / "f").write_text("x")
    os.chmod(root / "f", 0o751)
    os.utime(root / "f", (1_000_000_000, 1_000_000_000))
    change = jail.copy("f", "g")
    assert (change.op, change.path, change.to, change.saved) == ("copy", "f", "g", None)
    assert (root / "g").read_text() == "x"
    assert stat.S_IMODE(os.stat(root / "g").st_mode) == 0o751
    assert os.stat(root / "g").st_ino != os.stat(root / "f").st_ino
    (root / "h").write_text("old")
    with pytest.raises(FileExistsError) as caught:
        jail.copy("f", "h")
    assert caught.value.filename == "h"
    assert (root / "h").read_text() == "old"
    change = jail.copy("f", "h", overwrite=True)
    assert change.saved is not None
    assert (root / ".fsjail/Trash/files" / change.saved.id).read_text() == "old"
    for goal in ("f", "./f"):
        with pytest.raises(FileExistsError):
            jail.copy("f", goal, overwrite=True)
    with pytest.raises(IsADirectoryError):
        (root / "d").mkdir()
        jail.copy("f", "d", overwrite=True)
    with pytest.raises(FileNotFoundError):
        jail.copy("no", "x")


def test_copy_a_tree(jail, root):
    (root / "d/e").mkdir(parents=True)
    (root / "d/f").write_text("x")
    (root / "d/e/g").write_text("y")
    (root / "d/e/up").symlink_to("../f")
    (root / "d/here").symlink_to("f")
    os.chmod(root / "d/e", 0o751)
    (root / "l").symlink_to("d")
    jail.copy("d", "c")
    assert {name[2:]: text for name, text in tree(root).items() if name.startswith("c/")} == {
        name[2:]: text for name, text in tree(root).items() if name.startswith("d/")
    }
    assert stat.S_IMODE(os.stat(root / "c/e").st_mode) == 0o751
    jail.copy("l", "c2")  # a link at the end is followed
    assert (root / "c2").is_dir()
    assert not (root / "c2").is_symlink()
    with pytest.raises(FileExistsError):
        jail.copy("d", "c")
    change = jail.copy("d", "c", overwrite=True)
    assert change.saved is not None
    assert change.saved.kind == "directory"
    (root / "f").write_text("x")
    with pytest.raises(NotADirectoryError):
        jail.copy("d", "f", overwrite=True)
    with pytest.raises(InvalidName):
        jail.copy("d", "d/e/new")
    assert os.listdir(root / ".fsjail/stage") == []


@pytest.mark.parametrize("text", ["/etc", "../../x", "../../../outside/secret"])
def test_copy_of_a_tree_with_a_link_that_leads_out(text, jail, root):
    (root / "d/e").mkdir(parents=True)
    (root / "d/e/l").symlink_to(text)
    before = tree(root)
    with pytest.raises(OutOfBounds):
        jail.copy("d", "c")
    assert tree(root) == before
    assert os.listdir(root / ".fsjail/stage") == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_copy_of_a_tree_with_a_fifo(overwrite, jail, root):
    (root / "d").mkdir()
    (root / "d/f").write_text("x")
    os.mkfifo(root / "d/p")
    if overwrite:
        (root / "c").mkdir()
        (root / "c/precious").write_text("y")
    before = {name: text for name, text in tree(root).items() if name != "d/p"}
    started = time.monotonic()
    with pytest.raises(NotRegularFile):
        jail.copy("d", "c", overwrite=overwrite)
    assert time.monotonic() - started < 1
    assert {name: text for name, text in tree(root).items() if name != "d/p"} == before, "something is gone"
    assert os.listdir(root / ".fsjail/stage") == []


def test_copy_onto_a_parent_of_the_source_changes_nothing(jail, root):
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/f").write_text("x")
    (root / "a/other").write_text("y")
    before = tree(root)
    with pytest.raises((OSError, ValueError)):
        jail.copy("a/b", "a", overwrite=True)
    assert tree(root) == before


def test_move_onto_a_parent_of_the_source(jail, root):
    """Refused, or done so that it can be undone."""
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/f").write_text("x")
    (root / "a/other").write_text("y")
    before = tree(root)
    with suppress(OSError, ValueError):
        jail.move("a/b", "a", overwrite=True)
        jail.undo()
    assert tree(root) == before


def test_a_refused_copy_over_a_tree_keeps_it(make, root):
    """What is denied on the way shows only while copying: it appears between judging and copying."""
    (root / "s").mkdir()
    (root / "s/f").write_text("x")
    (root / "t").mkdir()
    (root / "t/precious").write_text("y")
    jail = make()
    real = jail._store.keep

    def keep(target, reason):
        (root / "s/.env").write_text("SECRET")
        return real(target, reason)

    jail._store.keep = keep
    with suppress(PolicyDenied):
        jail.copy("s", "t", overwrite=True)
    assert (root / "t/precious").exists() or (root / "t/f").exists(), "neither the old nor the new is there"
    assert not (root / "t/.env").exists()


def test_copy_judges_old_and_new_names(make, root):
    (root / "a").mkdir()
    (root / "a/x.md").write_text("x")
    (root / "s").mkdir()
    (root / "s/.env").write_text("SECRET")
    (root / "s/l").symlink_to(".env")
    jail = make(Policy(write=Rules(allow=["*"], deny=["/b/*.md"])))
    for source, goal, beneath in (("a", "b", "b/x.md"), ("s", "t", "s/.env")):
        with pytest.raises(PolicyDenied) as caught:
            jail.copy(source, goal)
        assert beneath in str(caught.value)
    assert not (root / "b").exists()
    assert not (root / "t").exists()


# ── move ───────────────────────────────────────────────────────────────────────────────────────


def test_move(jail, root):
    (root / "f").write_text("x")
    inode = os.stat(root / "f").st_ino
    change = jail.move("f", "g")
    assert (change.op, change.path, change.to, change.saved) == ("move", "f", "g", None)
    assert os.stat(root / "g").st_ino == inode
    (root / "h").write_text("old")
    with pytest.raises(FileExistsError) as caught:
        jail.move("g", "h")
    assert caught.value.filename == "h"
    change = jail.move("g", "h", overwrite=True)
    assert change.saved is not None
    assert change.saved.why == "moved onto"
    assert (root / ".fsjail/Trash/files" / change.saved.id).read_text() == "old"
    assert tree(root) == {"h": "x"}
    assert jail.move("h", "./h").seq is None
    with pytest.raises(FileNotFoundError):
        jail.move("no", "x")
    with pytest.raises(NotADirectoryError):
        jail.move("h", "x/")


def test_move_kinds(jail, root):
    (root / "d").mkdir()
    (root / "d/f").write_text("x")
    (root / "f").write_text("y")
    (root / "l").symlink_to("f")
    (root / "l2").symlink_to("d")
    with pytest.raises(IsADirectoryError):
        jail.move("f", "d", overwrite=True)
    with pytest.raises(NotADirectoryError):
        jail.move("d", "f", overwrite=True)
    with pytest.raises(InvalidName):
        jail.move("d", "d/e")
    jail.move("l", "l3")
    assert os.readlink(root / "l3") == "f"
    jail.move("l3", "l2", overwrite=True)  # onto a link: the link goes, what it leads to stays
    assert os.readlink(root / "l2") == "f"
    assert (root / "d/f").read_text() == "x"
    jail.move("f", "l2", overwrite=True)
    assert (root / "l2").read_text() == "y"
    (root / "e").mkdir()
    change = jail.move("d", "e", overwrite=True)
    assert change.saved is not None
    assert change.saved.kind == "directory"
    assert tree(root) == {"e": None, "e/f": "x", "l2": "y"}
    jail.move("e", "k/")
    assert (root / "k/f").exists()


def test_move_between_two_names_of_one_file(jail, root):
    (root / "f").write_text("x")
    os.link(root / "f", root / "g")
    change = jail.move("f", "g", overwrite=True)
    assert tree(root) == {"g": "x"}
    assert change.saved is not None


@pytest.mark.parametrize("goal", ["d", "taken"])
def test_a_destination_that_appears_while_moving(goal, jail, root, monkeypatch):
    (root / "f").write_text("x")
    real = jail._store.move
    done: list[int] = []

    def move(source, target):
        if not done:
            done.append(1)
            (root / goal).write_text("theirs")
        return real(source, target)

    monkeypatch.setattr(jail._store, "move", move)
    with pytest.raises(FileExistsError):
        jail.move("f", goal)
    assert tree(root) == {"f": "x", goal: "theirs"}


def test_move_asks_read_and_write_of_the_source(make, root):
    (root / "a").write_text("x")
    (root / ".env").write_text("SECRET")
    jail = make(Policy(write=Rules(allow=["*"], deny=["/a"])))
    for name in ("a", ".env"):
        with pytest.raises(PolicyDenied):
            jail.move(name, "b")
    assert tree(root) == {"a": "x", ".env": "SECRET"}


@pytest.mark.parametrize("op", ["copy", "move"])
def test_the_error_names_what_is_missing(op, jail, root):
    (root / "f").write_text("x")
    with pytest.raises(FileNotFoundError) as caught:
        getattr(jail, op)("f", "missing/g")
    assert caught.value.filename == "missing/g", "the source is there"
    (root / "file").write_text("x")
    with pytest.raises(NotADirectoryError) as caught_too:
        getattr(jail, op)("f", "file/g")
    assert caught_too.value.filename == "file/g"


# ── values, special files, trees ───────────────────────────────────────────────────────────────


def test_entries(jail, root):
    (root / "d").mkdir()
    (root / "d/f").write_text("abc")
    os.utime(root / "d/f", (5, 1234.5))
    (root / "d/l").symlink_to("f")
    (root / "d/sub").mkdir()
    os.mkfifo(root / "d/p")
    entries = jail.listdir("d")
    assert [(each.path, each.name, each.kind) for each in entries] == [
        ("d/f", "f", "file"),
        ("d/l", "l", "link"),
        ("d/p", "p", "other"),
        ("d/sub", "sub", "directory"),
    ]
    assert entries[0] == Entry("d/f", "f", "file", 3, 1234.5)
    with pytest.raises(NotADirectoryError) as caught:
        jail.listdir("d/f")
    assert caught.value.filename == "d/f"
    with pytest.raises(FileNotFoundError):
        jail.listdir("no")


def test_special_files_are_answered_at_once(jail, root):
    os.mkfifo(root / "p")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(root)  # a socket's name may be 107 bytes long
        try:
            server.bind("s")
        finally:
            os.chdir(here)
        for name in ("p", "s"):
            for call in (
                lambda name=name: jail.read_bytes(name),
                lambda name=name: jail.open(name),
                lambda name=name: jail.write_text(name, "x"),
                lambda name=name: jail.append_text(name, "x"),
                lambda name=name: jail.edit(name, "x", "y"),
                lambda name=name: jail.open(name, "r+"),
                lambda name=name: jail.copy(name, "c"),
                lambda name=name: list(jail.grep("x", name)),
            ):
                started = time.monotonic()
                with pytest.raises(NotRegularFile):
                    call()
                assert time.monotonic() - started < 0.5
    assert sorted(os.listdir(root)) == ["p", "s"]


def test_an_absolute_name_below_the_root(jail, root):
    (root / "f").write_text("x")
    assert jail.read_text(root / "f") == "x"
    assert jail.write_text(root / "g", "y").path == "g"


@needs_root
def test_a_file_that_may_be_written_but_not_read(root, tmp_path):
    from _attackers import drop_to_nobody, in_child

    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent, root.parent):
        os.chmod(folder, 0o755)
    os.chmod(root, 0o777)
    (root / "f").write_text("old")
    os.chown(root / "f", 65534, 65534)
    os.chmod(root / "f", 0o200)
    state = tmp_path / "state"
    state.mkdir()
    os.chmod(state, 0o777)

    def work():
        drop_to_nobody()
        with Jail(root, OPEN, state=state) as jail:
            jail.write_text("f", "new")
            st = os.stat(root / "f")
            return stat.S_IMODE(st.st_mode), len(jail.trash.items())

    assert in_child(work) == (0o200, 1)
    assert (root / "f").read_text() == "new"


# ── the jail itself ────────────────────────────────────────────────────────────────────────────


def test_the_jail_as_a_value(make, root):
    jail = make()
    assert jail.root == str(root)
    assert re.match(r"Jail\('.*root', ", repr(jail))
    jail.close()
    jail.close()
    with Jail(root, state=root.parent / "s2") as fresh:
        assert fresh.check("read", "x")
        assert not fresh.check("write", "x")


def test_state_and_trash_inside_the_root_are_out_of_reach(make, root):
    jail = make(state=root / "a [state]", trash_location=root / "my*trash")
    jail.write_text("f", "1")
    jail.write_text("f", "2")
    for name in ("a [state]", "my*trash"):
        for op in ("read", "list", "write", "delete"):
            decision = jail.check(op, name)
            assert not decision, (op, name)
        with pytest.raises(PolicyDenied):
            jail.listdir(name)
    assert [entry.name for entry in jail.listdir()] == ["f"]
    assert len(jail.trash.items()) == 1


def test_check_says_what_it_does_not_do(jail, root):
    (root / "f").write_text("x")
    (root / "d").mkdir()
    assert jail.check("copy", "f", to="g").resolved == "f"
    assert jail.check("copy", "f")
    assert jail.check("move", "d", to="d/e").why == "jail: into itself"
    assert jail.check("write", "no/such/file")
    assert jail.check("read", "f/x")
    assert jail.check("delete", ".").why == "jail: root"
    assert jail.check("read", "../x").why == "jail: outside"
    assert jail.check("read", "").why == "jail: invalid name"
    assert jail.check("mkdir", "new").resolved == "new"
    with pytest.raises(ValueError, match="no operation"):
        jail.check("chmod", "f")
    (root / "out").symlink_to("/etc")
    assert jail.check("read", "out/passwd").why == "jail: outside"
    assert list(jail.audit.events()) == []


def test_the_log_names_the_rule(jail, root):
    for name in (".env", "../x", ""):
        with pytest.raises((PolicyDenied, OutOfBounds, InvalidName)):
            jail.read_text(name)
    events = list(jail.audit.events(denied=True))
    assert [event.why for event in events] == ["preset secrets[0]", "jail: outside", "jail: invalid name"]
    assert events[0].rule is not None
    assert events[0].rule["pattern"] == ".env"


def test_a_trash_folder_that_cannot_be(jail, root):
    (root / "f").write_text("old")
    (root / ".fsjail").write_text("in the way")
    for call in (lambda: jail.write_text("f", "new"), lambda: jail.delete("f")):
        with pytest.raises(TrashError, match="trash folder"):
            call()
    assert (root / "f").read_text() == "old"


# ── what happens between judging and acting ────────────────────────────────────────────────────


def between(jail: Jail, monkeypatch, act) -> None:
    """Do something once, behind the first resolving: what an attacker has the time to do."""
    real = jail._root.resolve
    done: list[int] = []

    def resolve(*args, **kwargs):
        target = real(*args, **kwargs)
        if not done:
            done.append(1)
            act()
        return target

    monkeypatch.setattr(jail._root, "resolve", resolve)


@pytest.mark.parametrize("instead", ["gone", "link", "another file", "a directory"])
@pytest.mark.parametrize("op", ["write", "append", "edit", "delete", "move", "move onto", "open"])
def test_a_name_is_swapped_after_it_was_judged(op, instead, jail, root, monkeypatch):
    """The call judges again what is there now; nothing is lost and nothing half done."""
    (root / "f").write_text("old")
    (root / "g").write_text("other")
    (root / "spare").mkdir()

    def swap():
        (root / "f").unlink()
        if instead == "link":
            (root / "f").symlink_to("g")
        elif instead == "another file":
            (root / "f").write_text("old but another")
        elif instead == "a directory":
            (root / "spare").rename(root / "f")

    between(jail, monkeypatch, swap)
    calls = {
        "write": lambda: jail.write_text("f", "new"),
        "append": lambda: jail.append_text("f", "new"),
        "edit": lambda: jail.edit("f", "old", "new"),
        "delete": lambda: jail.delete("f"),
        "move": lambda: jail.move("f", "n"),
        "move onto": lambda: jail.move("f", "g", overwrite=True),
        "open": lambda: jail.open("f", "a").close(),
    }
    with suppress(OSError, ValueError):
        calls[op]()
    everything = [text for text in tree(root).values() if text is not None]
    if (root / ".fsjail").exists():
        assert os.listdir(root / ".fsjail/stage") == []
        everything += [
            path.read_text() for path in (root / ".fsjail/Trash/files").iterdir() if path.is_file()
        ]
    assert any("other" in text for text in everything)
    if instead == "another file":
        assert any("another" in text for text in everything)


def test_a_running_program_can_be_replaced(jail, root):
    shutil.copy("/bin/sleep", root / "prog")
    with subprocess.Popen([root / "prog", "30"]) as process:
        try:
            jail.write_text("prog", "new")
        finally:
            process.kill()
    assert (root / "prog").read_text() == "new"


def test_what_may_be_written_but_not_read_is_replaced(jail, root, monkeypatch):
    (root / "f").write_text("old")
    os.chmod(root / "f", 0o200)
    flags = _selftest.READ
    refuse(monkeypatch, "open", errno.EACCES, when=lambda p, f=0, *_a, **_k: p == "f" and f == flags)
    jail.write_text("f", "new")
    assert stat.S_IMODE(os.stat(root / "f").st_mode) == 0o200


@pytest.mark.parametrize("mode", ["a", "r+"])
def test_an_open_that_cannot_copy_leaves_nothing(mode, jail, root, monkeypatch):
    (root / "f").write_text("old")
    jail.record("test", "f", decision="allow", why="the log stays open behind its first record")
    before = len(os.listdir("/proc/self/fd"))
    refuse(monkeypatch, "copy_data", errno.EIO)
    with pytest.raises(OSError, match="Input"):
        jail.open("f", mode)
    assert len(os.listdir("/proc/self/fd")) == before
    assert tree(root) == {"f": "old"}


def test_a_move_over_a_tree_that_fails_brings_it_back(jail, root, monkeypatch):
    (root / "d").mkdir()
    (root / "e").mkdir()
    (root / "e/y").write_text("in e")

    def move(_source, _target):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(jail._store, "move", move)
    with pytest.raises(OSError, match="broken"):
        jail.move("d", "e", overwrite=True)
    assert tree(root) == {"d": None, "e": None, "e/y": "in e"}
    assert jail.trash.items() == []


def test_a_directory_that_appears_is_no_error_with_exist_ok(jail, root, monkeypatch):
    (root / "d").mkdir()
    monkeypatch.setattr(jail, "is_dir", lambda _path: False)
    assert jail.mkdir("d", exist_ok=True).seq is None


@pytest.mark.parametrize("options", [{"encoding": "utf-8"}, {"newline": ""}])
@pytest.mark.parametrize("mode", ["rb", "wb", "r+b"])
def test_binary_modes_take_no_text_options(mode, options, jail, root):
    (root / "f").write_text("old")
    with pytest.raises(ValueError, match="binary"):
        jail.open("f", mode, **options)
    assert tree(root) == {"f": "old"}


def test_threads_that_make_the_first_change_together(jail, root, monkeypatch):
    """The trash folder is opened by the first change: no other may see it half open."""
    for number in range(6):
        (root / f"f{number}").write_text("old")
    real = os.mkdir

    def mkdir(*args, **kwargs):
        time.sleep(0.01)
        return real(*args, **kwargs)

    monkeypatch.setattr(os, "mkdir", mkdir)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            time.sleep(0.005 * number)
            jail.write_text(f"f{number}", "new")
        except BaseException as error:  # noqa: BLE001 - shown below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(jail.trash.items()) == 6


# ── the resolver and its self-test ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize("resolver", ["openat2", "walk"])
def test_deep_names_and_the_way_back(resolver, jail, make, root, monkeypatch):
    monkeypatch.setenv("FSJAIL_RESOLVER", resolver)
    jail = make()
    deep = "/".join(["d"] * 100)
    jail.mkdir(deep, parents=True)
    jail.write_text(f"{deep}/f", "x")
    back = "/".join([".."] * 99)
    assert jail.read_text(f"{deep}/f") == "x"
    assert [entry.path for entry in jail.listdir(f"{deep}/{back}")] == ["d/d"]
    assert jail.stat(f"{deep}/../{'../' * 40}d").st_ino == os.stat(root / "/".join(["d"] * 60)).st_ino
    assert jail.listdir(f"{deep}/..")[0].path == deep
    with pytest.raises(OutOfBounds):
        jail.listdir(f"{deep}/{back}/../..")


def test_the_root_by_way_of_a_link(jail, root):
    (root / "s").mkdir()
    (root / "d").mkdir()
    (root / "s/l").symlink_to("../d")
    for call in (lambda: jail.delete("s/l/.."), lambda: jail.move("s/l/..", "n")):
        with pytest.raises((OutOfBounds, InvalidName)):
            call()
    assert sorted(tree(root)) == ["d", "s", "s/l"]


def test_a_link_is_not_covered_by_a_rule_for_directories(make, root):
    (root / "d").mkdir()
    (root / "x").symlink_to("d")
    jail = make(Policy(read=Rules(allow=["x/", "d/"])))
    assert jail.check("read", "d")
    assert jail.check("read", "x").why == "read.allow: no rule"


def test_another_way_to_the_jails_own_folder(jail, root):
    """A bind mount or another spelling shows the same inode."""
    (root / "d").mkdir()
    (root / "d/f").write_text("x")
    st = os.stat(root / "d")
    jail._store.inodes = frozenset([(st.st_dev, st.st_ino)])
    for call in (lambda: jail.listdir("d"), lambda: jail.delete("d"), lambda: jail.write_text("d/n", "x")):
        with pytest.raises(PolicyDenied) as caught:
            call()
        assert caught.value.decision is not None
        assert caught.value.decision.why == "builtin"
    assert tree(root) == {"d": None, "d/f": "x"}


def test_many_names_are_not_remembered_for_ever(jail, root, monkeypatch):
    monkeypatch.setattr("fsjail._root._PARSED_MAX", 3)
    for number in range(10):
        assert not jail.exists(f"n{number}")
    assert len(jail._root._parsed) <= 3


def test_reopening_takes_no_file_for_a_directory(jail, root):
    (root / "f").write_text("x")
    with pytest.raises((Moved, NotADirectoryError)):
        os.close(reopen(jail._root.fd, ["f"]))


@pytest.mark.parametrize("what", ["dots", "links", "no call", "other errors"])
def test_the_self_test_turns_off_a_call_that_misbehaves(what, root, monkeypatch):
    real = _selftest.openat2

    def fake(fd, name, how):
        if what == "no call":
            raise OSError(errno.ENOSYS, "no")
        if name == b".":
            return real(fd, name, how)
        if what == "other errors":
            raise OSError(errno.EIO, "odd")
        if (name == b"..") == (what == "dots"):
            return os.open("/", os.O_RDONLY)
        return real(fd, name, how)

    monkeypatch.setattr(_selftest, "_answer", [])
    monkeypatch.setattr(_selftest, "openat2", fake)
    assert _selftest.self_test() is False
    jail = Root(root)
    assert jail.fast is False
    jail.close()


@pytest.mark.parametrize("what", ["links", "system"])
def test_no_jail_where_links_are_not_told_apart(what, root, monkeypatch):
    monkeypatch.setattr(_selftest, "_answer", [])
    if what == "system":
        monkeypatch.setattr(os, "supports_dir_fd", set())
    else:
        if not os.path.islink("/proc/self"):
            pytest.skip("there is no /proc/self to try it on")
        monkeypatch.setattr(_selftest, "PATH", _selftest.PATH & ~os.O_NOFOLLOW)
    with pytest.raises(OSError, match=r"follows links|POSIX") as caught:
        Root(root)
    assert caught.value.errno == errno.ENOTSUP


def test_the_self_test_works_without_a_known_link(monkeypatch):
    monkeypatch.setattr(_selftest, "_answer", [])
    monkeypatch.setattr(os.path, "islink", lambda _path: False)
    assert isinstance(_selftest.self_test(), bool)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO])
def test_check_gives_no_answer_where_nothing_is_known(jail, root, monkeypatch, code):
    (root / "f").symlink_to("/etc/hosts")
    assert not jail.check("read", "f")

    def fails(*_args, **_options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(jail._root, "resolve", fails)
    with pytest.raises(OSError, match=re.escape(os.strerror(code))) as caught:
        jail.check("read", "f")
    assert caught.value.filename == "f"
