"""Follows an audit log while others write it: across rotation, and from before it exists."""

from __future__ import annotations

import errno
import os
import re
from collections import deque
from typing import TYPE_CHECKING

from fsjail._logfiles import LOG, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 2**18
_LONGEST = 2**20  # bytes of a line; a file without line ends must not fill the memory
_SEQ = re.compile(rb'\{"v":[0-9]+,"seq":([0-9]{1,20}),')


class Follower:
    """Gives the lines that were added since it was asked last.

    It holds the file open that it reads. When the log's name stands for another file, it looks at all
    files under the log's lock, finds its own among those that were rotated, and goes on from there.
    """

    def __init__(self, folder: str) -> None:
        """Name the folder of the log; nothing is opened yet, and the log need not exist.

        Args:
            folder: the folder of the log.
        """
        self._path = os.path.join(folder, LOG)
        self._folder = folder
        self._fd, self._at, self._rest = -1, 0, b""
        self._next: deque[int] = deque()  # descriptors of the files behind the one that is read
        self._seq = 0  # of the last record that was given
        self._skip = 0  # records up to this one were given before the way was lost

    def begin(self, snapshot: Snapshot) -> None:
        """Start behind what a snapshot holds.

        Args:
            snapshot: a look at all files that is still open.
        """
        self._seq = snapshot.head.seq if snapshot.head is not None else 0
        if snapshot.files and snapshot.files[-1][0] == LOG and snapshot.files[-1][1] >= 0:
            _name, fd, size = snapshot.files[-1]
            tail = os.pread(fd, min(size, _BLOCK), max(0, size - _BLOCK))
            self._fd = os.dup(fd)
            self._at = size - len(tail) + tail.rfind(b"\n") + 1  # a torn line is read when it is whole

    def poll(self) -> Iterator[bytes]:
        """Read what is new, without waiting.

        Yields:
            lines, without their newline; damaged ones too.

        Raises:
            OSError: the folder or a file of the log cannot be read, or is no regular file.
        """
        while True:
            for line in self._read():
                found = _SEQ.match(line)
                seq = int(found[1]) if found else 0
                if found and seq <= self._skip:
                    continue
                self._seq = seq or self._seq
                yield line
            if self._next:
                self._turn()
            elif not self._moved() or not self._look():
                return

    def close(self) -> None:
        """Close all descriptors."""
        for fd in (self._fd, *self._next):
            if fd >= 0:
                os.close(fd)
        self._fd = -1
        self._next.clear()

    def _read(self) -> Iterator[bytes]:
        """Read the file that is held, from where it was left to its end."""
        while self._fd >= 0 and (block := os.pread(self._fd, _BLOCK, self._at)):
            self._at += len(block)
            *lines, self._rest = (self._rest + block).split(b"\n")
            if len(self._rest) > _LONGEST:
                self._rest = b""  # no record is as long; its end will not decode, and is left out
            yield from lines

    def _turn(self) -> None:
        """Go on with the next file."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._at, self._rest = self._next.popleft(), 0, b""

    def _moved(self) -> bool:
        """Tell whether the log's name stands for another file than the one that is held, or a shorter one."""
        try:
            st = os.stat(self._path, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return self._fd >= 0
        if self._fd < 0:
            return True
        held = os.fstat(self._fd)
        return (st.st_dev, st.st_ino) != (held.st_dev, held.st_ino) or st.st_size < self._at

    def _look(self) -> bool:
        """Find the way from the file that is held to the newest one; False if there is none yet."""
        try:
            with Snapshot(self._folder) as snapshot:
                files = [fd for fd, _size in snapshot.readable()]
                ids = [_identity(fd) for fd in files]
                known = self._fd >= 0 and os.fstat(self._fd).st_size >= self._at
                if known and (held := _identity(self._fd)) in ids:
                    after = files[ids.index(held) + 1 :]
                else:  # its file was removed or cut, or there is another log now
                    after = files
                    known_end = snapshot.head.seq if snapshot.head is not None else 0
                    self._skip = self._seq if known_end >= self._seq else 0
                    self.close()
                    self._rest = b""
                    if not files:  # removed whole: what comes next begins anew, and may soon be longer
                        self._seq = 0
                self._next.extend(os.dup(fd) for fd in after)
        except OSError as error:
            if error.errno == errno.ETIMEDOUT:  # a writer that was stopped holds the lock: ask again later
                return False
            raise
        return bool(self._next)


def _identity(fd: int) -> tuple[int, int]:
    st = os.fstat(fd)
    return (st.st_dev, st.st_ino)
