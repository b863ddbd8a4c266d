"""The hash chain: appends to the audit log under its lock, repairs it, rotates it.

- **Torn line** (killed while writing): the next append ends it with a newline and adds a ``repair``
  record that holds its length and SHA-256. Nothing is ever taken out of the log.
- **Cut or replaced tail**: the next append goes on from what ``head`` remembers, not from what the
  file says, so the gap in the chain stays visible to a check for good.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from typing import TYPE_CHECKING, Any

from fsjail._logfiles import (
    HEAD,
    LOCK,
    LOG,
    Head,
    fail,
    open_file,
    open_folder,
    read_head,
    release,
    rotated,
    take_lock,
)
from fsjail._record import NONE, fits, parse

if TYPE_CHECKING:
    from collections.abc import Callable

Placed = tuple[int, str, str, str]  # seq, time, prev and hash of a record
_FIRST = re.compile(rb'\{"v":[0-9]+,"seq":([0-9]+),')


class Chain:
    """The files: appends under the lock, repairs, rotates."""

    def __init__(
        self, folder: str, max_bytes: int, keep: int, repair: Callable[[str, dict[str, Any]], str]
    ) -> None:
        """Name the files; nothing is opened before the first append.

        Args:
            folder: the folder of the log.
            max_bytes: size of a file, in bytes, at which it is rotated.
            keep: how many rotated files stay.
            repair: makes the fields of a repair record, of its reason and facts.
        """
        self._path = folder
        self._max_bytes = max_bytes
        self._keep = keep
        self._repair = repair
        self.repairs: list[tuple[str, dict[str, Any], Placed]] = []  # made since somebody took them out
        self._folder = self._lock = self._log = self._head = -1
        self._seen: tuple[int, int, int] | None = None  # device, inode, size after our own last write
        self._first, self._seq, self._size, self._hash = 1, 0, 0, NONE
        self._second, self._stamp = -1, ""

    def forget(self) -> None:
        """Close all descriptors; the next append opens them again."""
        self._seen = None
        for name in ("_log", "_head", "_lock", "_folder"):
            self._close(name)

    def prepare(self) -> None:
        """Open the log and read its end, without writing; raises where a record could not be added."""
        self._acquire()
        try:
            self._sync()
        finally:
            release(self._lock)

    def append(self, fields: str) -> Placed:
        """Add a record; gives its seq, time, prev and hash."""
        self._acquire()
        try:
            self._sync()
            return self._add(fields)
        except BaseException:
            self._seen = None  # perhaps half done: read it anew next time
            raise
        finally:
            release(self._lock)

    def _close(self, name: str) -> None:
        fd = getattr(self, name)
        setattr(self, name, -1)
        if fd >= 0:
            os.close(fd)

    def _acquire(self) -> None:
        for _ in range(10):
            if self._lock < 0:
                _make(self._path)
                self.forget()
                self._folder = open_folder(self._path)
                self._lock = open_file(LOCK, os.O_RDWR | os.O_CREAT, self._folder)
            take_lock(self._lock)
            if os.fstat(self._lock).st_nlink:
                return
            self.forget()  # the folder was removed meanwhile: a lock on a dead file excludes nobody
        fail("the lock file keeps vanishing")

    def _sync(self) -> None:
        """Learn where the chain ends, if anybody else has written since."""
        try:
            st = os.stat(LOG, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            self._seen = None
        else:
            if (st.st_dev, st.st_ino, st.st_size) == self._seen:
                return
        self._close("_head")
        self._head = open_file(HEAD, os.O_RDWR | os.O_CREAT, self._folder)
        head = read_head(self._head)
        self._reopen()
        if head is not None and head.size == self._size and (head.size or not head.seq):
            # Another process of ours wrote last. If the bytes were changed in place, the chain
            # goes on from the true hash, and verify finds the record that does not fit.
            self._first, self._seq, _, self._hash = head
            return
        self._mend(head)

    def _reopen(self) -> None:
        self._close("_log")
        self._log = open_file(LOG, os.O_RDWR | os.O_APPEND | os.O_CREAT, self._folder)
        st = os.fstat(self._log)
        self._size = st.st_size
        self._id = (st.st_dev, st.st_ino)

    def _mend(self, head: Head | None) -> None:
        """Find the end of the chain by reading, and repair what a kill or a hand has done to it."""
        last, torn, newline = _last(self._log, self._size)
        self._seq, self._hash = last or self._last_rotated()
        missing = False
        remains: dict[str, Any] = {}
        if head is None:
            if found := os.pread(self._head, 2**16, 0):  # what is written over now stays provable
                remains = {"bytes": os.fstat(self._head).st_size, "sha256": hashlib.sha256(found).hexdigest()}
            self._first = self._oldest(rotated(self._folder)) or self._seq + 1
            if self._seq == 0:  # before the first record, so that a missing head is always a sign
                self._write_head()
        else:
            self._first = head.first
            missing = head.seq > self._seq or (head.seq == self._seq and head.hash != self._hash)
            if missing:
                self._seq, self._hash = head.seq, head.hash
        if newline:
            _write(self._log, b"\n", self._size)
            self._size += 1
        if torn:
            facts = {"bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest()}
            self._tell("torn record", facts)
        if missing:
            self._tell("records missing", {"head": self._seq})
        elif head is None and self._seq:
            self._tell("head missing", remains)

    def _tell(self, why: str, facts: dict[str, Any]) -> None:
        """Record a repair."""
        self.repairs.append((why, facts, self._add(self._repair(why, facts))))

    def _last_rotated(self) -> tuple[int, str]:
        """Find the last record of the newest rotated file that has one."""
        for number in sorted(rotated(self._folder)):
            fd = open_file(f"audit.{number}.jsonl", os.O_RDONLY, self._folder)
            try:
                last = _last(fd, os.fstat(fd).st_size)[0]
            finally:
                os.close(fd)
            if last is not None:
                return last
        return 0, NONE

    def _oldest(self, numbers: list[int]) -> int | None:
        """Read the seq of the first record in the oldest of the given rotated files, or in the log."""
        fd = self._log
        if numbers:
            fd = open_file(f"audit.{max(numbers)}.jsonl", os.O_RDONLY, self._folder)
        try:
            found = _FIRST.match(os.pread(fd, 64, 0))
        finally:
            if numbers:
                os.close(fd)
        return int(found[1]) if found else None

    def _add(self, fields: str) -> Placed:
        seq, prev = self._seq + 1, self._hash
        second, rest = divmod(time.time_ns(), 10**9)
        if second != self._second:
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        moment = f"{self._stamp}.{rest // 1000:06d}Z"
        body = f'{{"v":1,"seq":{seq},"time":"{moment}",{fields},"prev":"{prev}"'
        digest = hashlib.sha256(f"{prev}{body}}}".encode("ascii")).hexdigest()
        line = f'{body},"hash":"{digest}"}}\n'.encode("ascii")
        if self._size and self._size + len(line) > self._max_bytes:
            self._rotate()
        _write(self._log, line, self._size)
        self._size += len(line)
        self._seq, self._hash = seq, digest
        self._write_head()
        self._seen = (*self._id, self._size)
        return seq, moment, prev, digest

    def _write_head(self) -> None:
        os.pwrite(self._head, Head(self._first, self._seq, self._size, self._hash).line(), 0)

    def _rotate(self) -> None:
        numbers = rotated(self._folder)
        staying = sorted(n for n in numbers if n < self._keep)
        if len(staying) < len(numbers):
            # The head first: if we are killed in between, there is more than it promises, never less.
            self._first = self._oldest(staying) or self._first
            self._write_head()
            for number in numbers:
                if number >= self._keep:
                    os.unlink(f"audit.{number}.jsonl", dir_fd=self._folder)
        moves = [(f"audit.{n}.jsonl", f"audit.{n + 1}.jsonl") for n in reversed(staying)]
        for old, new in [*moves, (LOG, "audit.1.jsonl")]:
            os.rename(old, new, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._reopen()


def _make(path: str) -> None:
    """Make the folder and missing parents with mode 0700."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        _make(os.path.dirname(path))
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)


def _write(fd: int, data: bytes, size: int) -> None:
    """Append all of it, or nothing if the disk is full."""
    done = os.write(fd, data)
    try:
        while done < len(data):
            done += os.write(fd, data[done:])
    except OSError:
        with contextlib.suppress(OSError):  # if this fails too, the next append repairs the line
            os.ftruncate(fd, size)
        raise


def _last(fd: int, size: int) -> tuple[tuple[int, str] | None, bytes, bool]:
    """Find the last good record of a file.

    Returns:
        Its seq and hash; the bytes behind it that are no record; whether a newline is missing.
    """
    step = 2**14
    while True:
        start = max(0, size - step)
        lines = os.pread(fd, size - start, start).split(b"\n")
        newline = bool(lines[-1])
        if not newline:
            lines.pop()
        torn = b""
        for index in range(len(lines) - 1, -1 if start == 0 else 0, -1):
            found = parse(lines[index])
            if found is not None and fits(lines[index], found["prev"]):
                return (found["seq"], found["hash"]), torn, newline
            torn = torn or lines[index]
        if start == 0:
            return None, torn, newline
        step *= 4
