"""The files of an audit log: their names, safe opening, the lock, the head, and a look at all of them.

``head`` is one line of fixed width: first and last ``seq``, last ``hash``, size of ``audit.jsonl``.
"""

from __future__ import annotations

import contextlib
import errno as errnos
import json
import os
import re
import stat
import time
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Self

from fsjail._record import NONE

if TYPE_CHECKING:
    from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # Windows: the import must work, so that Jail() can refuse in clear words
    fcntl = None  # type: ignore[assignment]

LOG, LOCK, HEAD = "audit.jsonl", "lock", "head"
_SAFELY = (  # a planted link is not followed, a planted FIFO does not block
    getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
)
_LOCK_SECONDS = 10.0  # a stopped process that holds the lock must not hang an agent
_ROTATED = re.compile(r"audit\.([1-9][0-9]{0,5})\.jsonl\Z")


class Head(NamedTuple):
    """The line in the head file."""

    first: int  # seq of the oldest record that is kept
    seq: int
    size: int  # of audit.jsonl
    hash: str

    def line(self) -> bytes:
        """Encode it; always the same width, so that it can be written in place."""
        return (
            f'{{"v":1,"first":{self.first:20d},"seq":{self.seq:20d},"size":{self.size:20d},'
            f'"hash":"{self.hash}"}}\n'
        ).encode("ascii")


class Snapshot:
    """Descriptors of all files of a log, with their sizes, as they were at one moment; oldest first."""

    def __init__(self, path: str) -> None:
        """Name the folder; nothing is opened yet."""
        self.files: list[tuple[str, int, int]] = []
        self.head: Head | None = None
        self._path = path

    def __enter__(self) -> Self:
        """Open all."""
        for _ in range(10):
            if self._take():
                return self
            self.__exit__()
        # An empty look would pass for a log in order.
        raise OSError(errnos.EIO, f"{LOCK} keeps coming and going")

    def readable(self) -> list[tuple[int, int]]:
        """Give descriptors and sizes, oldest file first.

        Raises:
            OSError: one of the files is a link, a FIFO or cannot be opened.
        """
        for name, fd, _size in self.files:
            if fd < 0:
                fail(f"{name} is not a readable regular file")
        return [(fd, size) for _name, fd, size in self.files]

    def _take(self) -> bool:
        """Open all; False if a first writer came meanwhile, so that it was done without its lock."""
        try:
            folder = open_folder(self._path)
        except FileNotFoundError:
            return True
        lock = -1
        try:
            with contextlib.suppress(FileNotFoundError):
                lock = open_file(LOCK, os.O_RDONLY, folder)
                take_lock(lock, shared=True)  # no rotation meanwhile
            for number in sorted(rotated(folder), reverse=True):
                self._add(f"audit.{number}.jsonl", folder)
            self._add(LOG, folder)
            with contextlib.suppress(OSError):
                fd = open_file(HEAD, os.O_RDONLY, folder)
                try:
                    self.head = read_head(fd)
                finally:
                    os.close(fd)
            return lock >= 0 or LOCK not in os.listdir(folder)
        except BaseException:
            self.__exit__()
            raise
        finally:
            if lock >= 0:
                os.close(lock)
            os.close(folder)

    def _add(self, name: str, folder: int) -> None:
        try:
            fd = open_file(name, os.O_RDONLY, folder)
        except FileNotFoundError:
            return
        except OSError:
            self.files.append((name, -1, 0))
            return
        self.files.append((name, fd, os.fstat(fd).st_size))

    def __exit__(self, *_: object) -> None:
        """Close all."""
        for _name, fd, _size in self.files:
            if fd >= 0:
                os.close(fd)
        self.files = []


def open_folder(path: str) -> int:
    """Open the folder of a log; a link in its place is refused."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | _SAFELY)


def open_file(name: str, flags: int, folder: int) -> int:
    """Open a regular file of the log; a planted link, FIFO or directory is refused, untouched."""
    try:
        fd = os.open(name, flags | _SAFELY, 0o600, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = "is a link" if error.errno == errnos.ELOOP else f"cannot be opened ({error.strerror})"
        raise OSError(error.errno, f"{name} {reason}") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            fail(f"{name} is not a regular file")
    except BaseException:
        os.close(fd)
        raise
    return fd


def fail(reason: str) -> NoReturn:
    """Refuse, with EIO: no other errno would be an answer about the agent's file."""
    raise OSError(errnos.EIO, reason)


def take_lock(fd: int, *, shared: bool = False) -> None:
    """Take the lock, waiting for a while only."""
    how = fcntl.LOCK_NB | (fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    until, delay = None, 0.00005
    while True:
        try:
            fcntl.flock(fd, how)
        except BlockingIOError:
            now = time.monotonic()
            until = until or now + _LOCK_SECONDS
            if now > until:
                raise OSError(errnos.ETIMEDOUT, "another process does not give up the lock") from None
            time.sleep(delay)
            delay = min(delay * 1.5, 0.005)
        else:
            return


def release(fd: int) -> None:
    """Give the lock back."""
    fcntl.flock(fd, fcntl.LOCK_UN)


def rotated(folder: int) -> list[int]:
    """List the numbers of the rotated files, in no order; the highest is the oldest file."""
    return [int(found[1]) for name in os.listdir(folder) if (found := _ROTATED.match(name))]


def read_head(fd: int) -> Head | None:
    """Decode the head; None if it is empty or damaged."""
    try:
        found = json.loads(os.pread(fd, 512, 0).partition(b"\n")[0])  # a longer one may have stood here
        head = Head(int(found["first"]), int(found["seq"]), int(found["size"]), str(found["hash"]))
    except (ValueError, TypeError, KeyError):
        return None
    return head if len(head.hash) == len(NONE) else None


def read_lines(fd: int, size: int) -> Iterator[bytes]:
    """Read lines without their newline, in blocks; the last may have had none."""
    rest, at = b"", 0
    while at < size:
        block = os.pread(fd, min(2**18, size - at), at)
        if not block:
            break
        at += len(block)
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
    if rest:
        yield rest


def lines_backwards(fd: int, size: int) -> Iterator[bytes]:
    """Read lines without their newline, the last line first, in blocks."""
    rest, at = b"", size
    while at > 0:
        start = max(0, at - 2**18)
        block = os.pread(fd, at - start, start)
        if len(block) < at - start:  # it was cut meanwhile: what was read is no longer whole
            rest = b""
        first, *lines = (block + rest).split(b"\n")
        if at == size and lines and not lines[-1]:
            lines.pop()
        yield from reversed(lines)
        rest, at = first, start
    if size:
        yield rest
