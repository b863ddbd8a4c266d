"""No descriptor and no thread stays behind: not after success, not after failure, not after close."""

from __future__ import annotations

import gc
import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from _attackers import RESOLVERS, SECRET, make_scene, open_descriptors, pick_resolver
from fsjail import Jail, JailError, Policy, Rules

ROUNDS = 200
OPEN = Policy(read=Rules(deny=["denied/"]), write=Rules(allow=["*"]), presets=())


class Stop(Exception):
    """Raised inside a `with` block on purpose."""


def _threads() -> tuple[int, int]:
    return threading.active_count(), len(os.listdir("/proc/self/task"))


def _fill(root: Path) -> None:
    for folder in ("a/b/c", "denied", "empty"):
        (root / folder).mkdir(parents=True)
    for name in ("f", "a/g", "a/b/c/h", "denied/k"):
        (root / name).write_text("text\n")
    (root / "binary").write_bytes(b"\xff\x00\xfe")
    os.symlink("a/g", root / "l")
    os.symlink("a", root / "ld")
    os.symlink("../outside/secret", root / "out")
    os.symlink("../outside", root / "outd")
    os.symlink("loop", root / "loop")
    os.symlink("nope", root / "dangling")
    os.mkfifo(root / "p")


def _broken_block(jail: Jail, path: str, mode: str) -> None:
    with suppress(Stop), jail.open(path, mode) as file:
        if mode == "w":
            file.write("half")
        raise Stop


def _abandon(steps: object) -> None:
    next(iter(steps))  # type: ignore[call-overload]


def _forgotten(jail: Jail) -> None:
    jail.open("f", "rb").read(1)  # never closed; the collector does


def _restore(jail: Jail) -> None:
    saved = jail.delete("a/b/c").saved
    with suppress(OSError):
        jail.trash.restore(saved.id, to="a")
    with suppress(OSError):
        jail.trash.restore(saved.id, to="../x")
    jail.trash.restore(saved.id)


NAMES = [
    "f",
    "l",
    "ld/g",
    "a/b/c/h",
    "ld/../a/b/c",
    ".",
    "nope",
    "nope/x",
    "f/x",
    "out",
    "outd/secret",
    "loop",
    "dangling",
    "denied/k",
    "p",
    "binary",
    "../outside/secret",
    "a\0b",
    "x" * 300,
]

READING = {
    "check": lambda jail, path: [
        jail.check(op, path) for op in ("read", "list", "write", "edit", "mkdir", "delete")
    ],
    "read_bytes": lambda jail, path: jail.read_bytes(path),
    "read_text": lambda jail, path: jail.read_text(path),
    "read_lines": lambda jail, path: jail.read_lines(path, 1, 1),
    "open": lambda jail, path: jail.open(path).close(),
    "open block": lambda jail, path: _broken_block(jail, path, "r"),
    "stat": lambda jail, path: jail.stat(path),
    "lstat": lambda jail, path: jail.stat(path, follow_symlinks=False),
    "exists": lambda jail, path: (jail.exists(path), jail.is_file(path), jail.is_dir(path)),
    "listdir": lambda jail, path: jail.listdir(path),
    "walk": lambda jail, path: list(jail.walk(path)),
    "walk abandoned": lambda jail, path: _abandon(jail.walk(path)),
    "glob": lambda jail, path: jail.glob("**/*", path),
    "grep": lambda jail, path: list(jail.grep("t", path)),
    "grep abandoned": lambda jail, path: _abandon(jail.grep("t", path)),
    "grep one": lambda jail, path: list(jail.grep("t", path, max_hits=1)),
}
FAILING = {
    "write": lambda jail, path: jail.write_text(path, "x"),
    "append": lambda jail, path: jail.append_text(path, "x"),
    "edit": lambda jail, path: jail.edit(path, "missing", "x"),
    "open w": lambda jail, path: _broken_block(jail, path, "w"),
    "open x": lambda jail, path: jail.open(path, "x").close(),
    "mkdir": lambda jail, path: jail.mkdir(path),
    "copy": lambda jail, path: jail.copy(path, "f"),
    "move": lambda jail, path: jail.move(path, "f"),
    "delete": lambda jail, path: jail.delete(path),
}
BAD = ["nope/x", "f/x", "outd/x", "loop/x", "denied/k", "../outside/x", "a\0b", "x" * 300, "."]
CHANGING = {
    "write": lambda jail: jail.write_text("f", "text\n"),
    "write bytes": lambda jail: jail.write_bytes("a/b/c/h", b"text\n"),
    "write parents": lambda jail: (jail.write_text("n/m/f", "x", parents=True), jail.delete("n")),
    "append": lambda jail: jail.append_text("f", "x"),
    "edit": lambda jail: (jail.edit("f", "text", "tixt"), jail.edit("f", "tixt", "text")),
    "open w": lambda jail: jail.open("f", "w").close(),
    "open w block": lambda jail: _broken_block(jail, "f", "w"),
    "mkdir": lambda jail: (jail.mkdir("new"), jail.delete("new")),
    "copy": lambda jail: (jail.copy("f", "f2"), jail.delete("f2")),
    "copy folder": lambda jail: (jail.copy("a", "a2"), jail.delete("a2")),
    "move": lambda jail: (jail.move("f", "f3"), jail.move("f3", "f")),
    "move over": lambda jail: (jail.copy("f", "f4"), jail.move("f4", "f", overwrite=True)),
    "delete and restore": _restore,
    "undo": lambda jail: jail.undo(jail.write_text("f", "other")),
    "trash": lambda jail: (jail.trash.items(), jail.trash.recover()),
    "audit": lambda jail: (list(jail.audit.events(denied=True)), jail.audit.verify()),
}


def _settle() -> None:
    gc.collect()


def _compare(before: dict[int, str], what: str) -> None:
    _settle()
    after = open_descriptors()
    extra = {fd: text for fd, text in after.items() if before.get(fd) != text}
    assert len(after) <= len(before), f"{what} leaves {len(after) - len(before)} descriptors: {extra}"


@pytest.fixture(params=RESOLVERS)
def scene(request, tmp_path, monkeypatch):
    pick_resolver(monkeypatch, request.param)
    made = make_scene(tmp_path)
    _fill(made.root)
    return made


@pytest.mark.parametrize("name", READING)
def test_reading_leaves_nothing_open(name, scene):
    call = READING[name]
    with Jail(scene.root, OPEN, state=scene.state, durability="none") as jail:
        for number in range(-len(NAMES), ROUNDS):
            if number == 0:
                _settle()
                before, threads = open_descriptors(), _threads()
            path = NAMES[number % len(NAMES)]
            with suppress(JailError, OSError, UnicodeDecodeError, StopIteration):
                call(jail, path)
        _compare(before, name)
        assert _threads() == threads


@pytest.mark.parametrize("name", FAILING)
def test_failed_changes_leave_nothing_open(name, scene):
    call, failed = FAILING[name], 0
    with Jail(scene.root, OPEN, state=scene.state, durability="none") as jail:
        for number in range(-len(BAD), ROUNDS):
            if number == 0:
                _settle()
                before, threads = open_descriptors(), _threads()
            try:
                call(jail, BAD[number % len(BAD)])
            except (JailError, OSError):
                failed += 1
        assert failed == ROUNDS + len(BAD), "a bad name was accepted"
        _compare(before, name)
        assert _threads() == threads


@pytest.mark.parametrize("name", CHANGING)
def test_changes_leave_nothing_open(name, scene):
    call = CHANGING[name]
    rounds = 60 if name == "audit" else ROUNDS // 4
    with Jail(scene.root, OPEN, state=scene.state, durability="none") as jail:
        for number in range(-3, rounds):
            if number == 0:
                _settle()
                before, threads = open_descriptors(), _threads()
            call(jail)
        _compare(before, name)
        assert _threads() == threads


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_forgotten_file_is_collected(scene):
    with Jail(scene.root, OPEN, state=scene.state, durability="none") as jail:
        _settle()
        before = open_descriptors()
        for _ in range(20):
            _forgotten(jail)
        _compare(before, "forgotten files")


def test_close_gives_back_every_descriptor(scene):
    # What a process opens once is no leak.
    with Jail(scene.root, OPEN, state=scene.state, durability="none") as warm:
        warm.write_text("f", "x")
        list(warm.grep("x"))
    _settle()
    before, threads = open_descriptors(), _threads()
    for number in range(30):
        jail = Jail(scene.root, OPEN, state=scene.state, durability="none")
        jail.read_text("f")
        jail.write_text("f", f"{number}")
        jail.delete("f")
        jail.undo()
        jail.trash.items()
        list(jail.audit.events())
        jail.close()
        jail.close()
        _settle()
        assert open_descriptors() == before, f"after round {number}"
    assert _threads() == threads


def test_a_failed_opening_leaves_nothing(scene):
    _settle()
    before = open_descriptors()
    for _ in range(50):
        for path in (scene.root / "nope", scene.root / "f", scene.root / "loop", scene.root / "p"):
            with suppress(OSError, JailError):
                Jail(path, OPEN, state=scene.state)
                pytest.fail(f"a jail on {path.name}")
    _compare(before, "failed openings")


def test_an_error_in_the_block_closes_the_jail(scene):
    _settle()
    before = open_descriptors()
    for _ in range(20):
        with suppress(Stop), Jail(scene.root, OPEN, state=scene.state, durability="none") as jail:
            jail.read_text("f")
            raise Stop
    _compare(before, "failed blocks")


def test_a_closed_jail_uses_no_recycled_descriptor(scene):
    """After close the numbers belong to others: a jail that used them on would work outside of its root."""
    (scene.outside / "f").write_text(SECRET)
    jail = Jail(scene.root, OPEN, state=scene.state, durability="none")
    assert jail.read_text("f") == "text\n"
    jail.write_text("f", "text\n")
    jail.delete("a/g")
    jail.close()
    held = [
        os.open(scene.outside, os.O_RDONLY | os.O_DIRECTORY) for _ in range(40)
    ]  # takes every number that is free
    try:
        around = scene.around()
        for call in (
            lambda: jail.read_text("f"),
            lambda: jail.read_text("ld/../f"),
            lambda: jail.exists("secret"),
            lambda: [entry.name for entry in jail.listdir()],
            lambda: jail.glob("*"),
            lambda: list(jail.grep("S")),
            lambda: list(jail.walk()),
            lambda: jail.write_text("new", "x"),
            lambda: jail.mkdir("made"),
            lambda: jail.delete("secret"),
            lambda: jail.move("secret", "x"),
            jail.trash.items,
            lambda: jail.trash.purge(keep_bytes=0),
        ):
            try:
                value = call()
            except (JailError, OSError, ValueError):
                continue
            assert not value, f"a closed jail answers {value!r}"
        assert scene.around() == around
    finally:
        for fd in held:
            os.close(fd)


def test_a_file_outlives_nothing_it_should_not(scene):
    """A file opened for writing before close() is committed into the root or discarded, nothing else."""
    jail = Jail(scene.root, OPEN, state=scene.state, durability="none")
    file = jail.open("f", "w")
    file.write("late")
    jail.close()
    held = [os.open(scene.outside, os.O_RDONLY | os.O_DIRECTORY) for _ in range(40)]
    try:
        around = scene.around()
        with suppress(JailError, OSError, ValueError):
            file.close()
        assert scene.around() == around
        assert (scene.root / "f").read_text() in {"late", "text\n"}
    finally:
        for fd in held:
            os.close(fd)
