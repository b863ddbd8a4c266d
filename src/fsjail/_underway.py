"""Marks of changes that are under way, so that a watch knows when no record of the jail can come any more.

A record is written behind its act, and a sync between the two can take long. From before the act until
behind the record a change holds a lock on one byte of the file ``changes`` in the log's folder; the byte's
number is the moment at which it began. A watch asks, and takes no lock itself: is a change still under way
that began before I saw this? Locks of a process that was killed are gone at once.

The file is made by the first watch. Where it is missing nobody has ever watched, and nothing is marked.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import threading
import time

NAME = "changes"
# A planted link is not followed, a planted FIFO does not block.
_SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FLOCK = struct.Struct("@hhqqi")  # struct flock of fcntl(2): type, whence, start, length, pid
# Locks of the open file, not of the process: a forked child or a second jail here must not let go of them.
_SET = getattr(fcntl, "F_OFD_SETLK", None)
_GET = getattr(fcntl, "F_OFD_GETLK", None)


class UnderWay:
    """The marks of one jail object, or a watch's look at those of all; safe for threads and after a fork.

    Args:
        folder: the folder of the audit log.
    """

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(os.path.abspath(folder), NAME)
        self._fd = -1
        self._pid = 0
        self._opening = threading.Lock()

    def begin(self) -> int:
        """Mark that a change begins.

        Returns:
            what :meth:`end` takes; 0 where nobody watches or no mark can be set.
        """
        if _SET is None:
            return 0
        try:
            if self._pid != os.getpid() or self._fd < 0 or not os.fstat(self._fd).st_nlink:
                self._open(0)
            moment = time.monotonic_ns()
            fcntl.fcntl(self._fd, _SET, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, moment, 1, 0))
        except OSError:
            return 0
        return moment

    def end(self, moment: int) -> None:
        """Take a mark away, behind the record."""
        if moment and _SET is not None and self._fd >= 0:
            fcntl.fcntl(self._fd, _SET, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, moment, 1, 0))

    def offer(self) -> bool:
        """Make the file, so that changes are marked from now on; False where that cannot be had."""
        try:
            _make(os.path.dirname(self._path))
            self._open(os.O_CREAT)
        except OSError:
            return False
        return self.free(1) is not None

    def free(self, moment: int) -> bool | None:
        """Tell whether every change that began up to a moment of ``time.monotonic_ns()`` has its record.

        Returns:
            None where nobody can tell.
        """
        if _GET is None or self._fd < 0:
            return None
        try:
            answer = fcntl.fcntl(self._fd, _GET, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, moment + 1, 0))
        except OSError:
            return None
        return bool(_FLOCK.unpack_from(answer)[0] == fcntl.F_UNLCK)

    def close(self) -> None:
        """Let go of the file; calling it again does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _open(self, how: int) -> None:
        with self._opening:  # two threads may make their first change together
            if self._pid == os.getpid() and self._fd >= 0:
                if os.fstat(self._fd).st_nlink:
                    return
                self.close()
            elif self._fd >= 0:  # inherited: what the parent has locked stays locked as long as it lives
                self.close()
            fd = os.open(self._path, os.O_RDWR | how | _SAFELY, 0o600)
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                os.close(fd)
                raise OSError("it is no regular file")
            self._pid, self._fd = os.getpid(), fd


def _make(path: str) -> None:
    """Make the folder and missing parents with mode 0700, as the log does."""
    missing = []
    while not os.access(path, os.F_OK):
        missing.append(path)
        path = os.path.dirname(path)
    for folder in reversed(missing):
        os.mkdir(folder, 0o700)
