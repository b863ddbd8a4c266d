"""What is measured: fsjail, the standard library, and programs that are a limit for searches.

A system is a class with a method for each operation that it has. Its answers are made comparable
by the functions of `answers`, outside the time that is taken.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import time
import zlib
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

from benchmarks import trees
from fsjail import AccessDenied, Jail, Limits, Policy, Rules

BIG = 1 << 20  # from here on contents are bytes, made of fewer different lines
FIRST = "first "  # before an operation: nothing is remembered from a call before
KEEP = 500  # items in the trash before it is emptied, between rounds


@dataclass(frozen=True, slots=True)
class Setup:
    """What systems are made with.

    Attributes:
        base: a folder for what they note: logs, states, rules as a file.
        rules: deny rules in gitignore syntax.
        programs: paths of rg, git, node, trash-put, and "server", the script of the MCP server.
    """

    base: str
    rules: tuple[str, ...]
    programs: dict[str, str]

    def folder(self, name: str) -> str:
        """A folder of its own for a system."""
        path = f"{self.base}/{name}-{os.getpid()}-{time.monotonic_ns()}"
        os.makedirs(path)
        return path


class Missing(Exception):
    """The system is not here; says why."""


@cache
def contents(size: int) -> tuple[bytes, bytes]:
    """Two contents of so many bytes, written in turn."""
    line = trees.text_of(min(size, BIG)).encode()
    whole = (line * (size // len(line) + 1))[:size]
    return whole, whole.swapcase()


class System:
    """One system over one root.

    Attributes:
        title: for a reader.
        group: "ours", "peer", "plain" (the standard library, unprotected) or "tool".
        ruled: whether it is given the deny rules.
        entries: whether a listing tells kind and size too, not the names only.
    """

    title: ClassVar[str] = ""
    group: ClassVar[str] = "peer"
    ruled: ClassVar[bool] = False
    entries: ClassVar[bool] = False

    def __init__(self, root: str, setup: Setup) -> None:
        self.root = root
        self.setup = setup
        self.turn = count()
        self.open()

    def open(self) -> None:
        """Make what the operations need, once."""

    def close(self) -> None:
        """Let go of it."""

    def tidy(self) -> None:
        """Clear away what the last round left, outside the time taken."""

    def time(self, op: str, args: tuple[Any, ...], number: int) -> float:
        """Seconds for so many calls of an operation; after "first " each is the first of its system."""
        if op.startswith(FIRST):
            return sum(self._first(op.removeprefix(FIRST), args) for _ in range(number))
        call = getattr(self, op)
        begin = time.perf_counter()
        for _ in range(number):
            call(*args)
        taken = time.perf_counter() - begin
        self.tidy()
        return taken

    def _first(self, op: str, args: tuple[Any, ...]) -> float:
        self.close()
        self.open()
        return System.time(self, op, args, 1)

    def answer(self, op: str, args: tuple[Any, ...]) -> Any:
        """What one call gives."""
        return getattr(self, op.removeprefix(FIRST))(*args)

    def content(self, size: int) -> bytes:
        """What to write next: another content at every call."""
        return contents(size)[next(self.turn) % 2]

    def fresh(self, folder: str) -> str:
        """A name that is not there yet."""
        return f"{folder}/new{next(self.turn)}"


class Fsjail(System):
    """The jail, with presets and rules, every change synced."""

    title = "fsjail"
    group = "ours"
    ruled = True
    entries = True
    durability: ClassVar[Any] = "full"

    def open(self) -> None:
        self.jail = Jail(
            self.root,
            policy(self.setup.rules),
            state=self.setup.folder("state"),
            durability=self.durability,
            limits=Limits(max_results=None, max_seconds=None),
        )
        self.kept = 0

    def close(self) -> None:
        self.jail.close()

    def tidy(self) -> None:
        if self.kept >= KEEP:
            self.kept = 0
            self.jail.trash.purge(older_than_days=0)

    def read(self, name: str) -> str:
        return self.jail.read_text(name)

    def create(self, folder: str, size: int) -> None:
        self.jail.write_bytes(self.fresh(folder), self.content(size))

    def overwrite(self, name: str, size: int) -> None:
        self.kept += KEEP if size > BIG else 1
        self.jail.write_bytes(name, self.content(size))

    def listing(self, name: str) -> Any:
        return self.jail.listdir(name)

    def glob(self, pattern: str) -> Any:
        return self.jail.glob(pattern)

    def grep(self, needle: str, literal: bool) -> Any:
        return list(self.jail.grep(needle, literal=literal))

    def walk(self) -> int:
        return sum(1 + len(names) for _, _, names in self.jail.walk()) - 1

    def delete(self, name: str) -> None:
        self.kept += 1
        self.jail.delete(name)

    def refused(self, *names: str) -> int:
        stopped = 0
        for name in names:
            try:
                self.jail.read_text(name)
            except AccessDenied:
                stopped += 1
        return stopped


class FsjailLoose(Fsjail):
    """The same without syncing."""

    title = 'fsjail, durability "none"'
    durability = "none"


def policy(rules: tuple[str, ...] | list[str]) -> Policy:
    """The policy that every measurement of fsjail uses: the rules and the three presets."""
    return Policy(read=Rules(deny=rules), write=Rules(allow=["*"]))


class Bare(System):
    """The standard library without any protection."""

    title = "os and pathlib, no protection"
    group = "plain"
    entries = True

    def read(self, name: str) -> str:
        return Path(self.root, name).read_text()

    def listing(self, name: str) -> Any:
        with os.scandir(f"{self.root}/{name}") as scan:
            found = [(entry.name, entry.is_dir(), entry.stat(follow_symlinks=False)) for entry in scan]
        return sorted((name, folder, st.st_size, st.st_mtime) for name, folder, st in found)

    def glob(self, pattern: str) -> Any:
        return glob.glob(pattern, root_dir=self.root, recursive=True, include_hidden=True)

    def grep(self, needle: str, literal: bool) -> Any:
        wanted = re.compile((re.escape(needle) if literal else needle).encode())
        hits = []
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = f"{folder}/{name}"
                with open(path, "rb") as file:
                    data = file.read()
                for found in wanted.finditer(data):
                    hits.append((path, data.count(b"\n", 0, found.start()) + 1))
        return hits

    def walk(self) -> int:
        return sum(1 + len(names) for _, _, names in os.walk(self.root)) - 1

    def delete(self, name: str) -> None:
        path = f"{self.root}/{name}"
        if os.path.isdir(path):
            shutil.rmtree(path)
        else:
            os.remove(path)


class Hand(System):
    """What is written by hand for a safe change: temp file and rename, synced; loses the old version."""

    title = "temp file + rename, synced"
    group = "plain"
    synced: ClassVar[bool] = True

    def create(self, folder: str, size: int) -> None:
        self.overwrite(self.fresh(folder), size)

    def overwrite(self, name: str, size: int) -> None:
        path = f"{self.root}/{name}"
        with open(f"{path}.tmp", "wb") as file:
            file.write(self.content(size))
            if self.synced:
                file.flush()
                os.fsync(file.fileno())
        os.replace(f"{path}.tmp", path)
        if self.synced:
            _sync(os.path.dirname(path))


class HandLoose(Hand):
    """The same without syncing."""

    title = "temp file + rename"
    synced = False


class Remove(System):
    """os.remove, with the folder synced."""

    title = "os.remove, folder synced"
    group = "plain"

    def delete(self, name: str) -> None:
        path = f"{self.root}/{name}"
        os.remove(path)
        _sync(os.path.dirname(path))


def _sync(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Plain(System):
    """The check that everybody writes: resolve, is_relative_to, and then use the path."""

    title = "pathlib: resolve + is_relative_to"
    entries = True

    def open(self) -> None:
        self.top = Path(self.root).resolve()

    def inside(self, name: str) -> Path:
        path = (self.top / name).resolve()
        if not path.is_relative_to(self.top):
            raise PermissionError(name)
        return path

    def read(self, name: str) -> str:
        return self.inside(name).read_text()

    def create(self, folder: str, size: int) -> None:
        self.inside(self.fresh(folder)).write_bytes(self.content(size))

    def overwrite(self, name: str, size: int) -> None:
        self.inside(name).write_bytes(self.content(size))

    def listing(self, name: str) -> Any:
        found = []
        for path in self.inside(name).iterdir():
            st = path.lstat()
            found.append((path.name, path.is_dir(), st.st_size, st.st_mtime))
        return sorted(found)

    def glob(self, pattern: str) -> Any:
        found = [path for path in self.top.glob(pattern) if path.resolve().is_relative_to(self.top)]
        return [str(path) for path in found]

    def refused(self, *names: str) -> int:
        stopped = 0
        for name in names:
            try:
                self.read(name)
            except PermissionError:
                stopped += 1
        return stopped


class Clock(System):
    """A fixed piece of work, the unit in which goals that are times are measured on any machine."""

    title = "the clock"
    group = "clock"

    def open(self) -> None:
        self.numbers = [number * 7919 % 4001 for number in range(4000)]
        self.data = b"clock" * 10_000
        self.folder = self.setup.folder("clock")
        for number in range(5):
            Path(self.folder, f"{number}").touch()

    def beat(self) -> None:
        # Inside the interpreter's C code and the system, so that Python's version does not change it.
        sorted(self.numbers)
        for _ in range(10):
            os.listdir(self.folder)
            zlib.crc32(self.data)

    def listing(self, _: str) -> Any:
        self.beat()
        return None

    def glob(self, _: str) -> Any:
        self.beat()
        return None

    def refused(self, *_: str) -> int:
        self.beat()
        return 0
