"""The kernel's notices, read by watchdog; the only import of watchdog.

Of watchdog 7 the part that reads is used, ``InotifyFD``. What its ``Observer`` builds upon that is not,
because a watch must not be blind in silence, and the observer of 7.1.0

- follows opens unless told otherwise: above some 4,096 directories its own look at the tree overflows the
  kernel's queue, which makes it look again, without end. Here `CHANGES` is asked for, in which no open is
  (and no close of what was only read);
- tells nobody of an overflow, and sets all watches anew: the notices of that overflow the queue again where
  there are more directories than the queue has places;
- passes over a directory that cannot be watched, such as when the limit of watches is reached;
- holds everything back for half a second behind a name that was moved away, as each deletion is.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsjail._root import Root

# The numbers are those of inotify(7).
WRITTEN, META, CLOSED = 0x2, 0x4, 0x8
MOVED_FROM, MOVED_TO, CREATED, DELETED = 0x40, 0x80, 0x100, 0x200
IGNORED, IS_DIR = 0x8000, 0x40000000
CHANGES = WRITTEN | META | CLOSED | MOVED_FROM | MOVED_TO | CREATED | DELETED
OPENED, SELF = 0x20, 0x400 | 0x800  # a look at it; the directory itself was deleted or moved
_ONLY_DIR, _NO_NAMELESS = 0x01000000, 0x04000000  # nothing of files without a name: staged content has none

# Beginnings of names of file systems whose content another machine, or another program, can change.
_REMOTE = (
    "nfs",
    "cifs",
    "smb",
    "9p",
    "fuse.",
    "virtiofs",
    "vboxsf",
    "prl_",
    "vmhgfs",
    "ceph",
    "afs",
    "lustre",
    "gpfs",
)

BOUND = 1_000_000  # notices that wait to be looked at; about 200 bytes each
_STOP_SECONDS = 5.0
CANARY_SECONDS = 1.0  # for a notice of what we did ourselves


class Notice(NamedTuple):
    """What happened: in which directory (by the number of its watch), what, and to which name."""

    watch: int
    mask: int
    cookie: int
    name: bytes
    at: int  # moment of time.monotonic_ns() at which it was read


def no_notices(folder: int) -> str | None:
    """Say why an open directory can change without a notice; None where it cannot.

    On a network or container mount only the changes of this system have notices.
    """
    try:
        with open(f"/proc/self/fdinfo/{folder}", "rb") as info:
            found = [line.split()[1] for line in info if line.startswith(b"mnt_id:")]
        kinds = {number: kind for number, _, kind in mounts()}
    except (OSError, IndexError):
        return None
    kind = kinds.get(found[0]) if found else None
    return None if kind is None else f"it is on {kind}, where others change it unseen"


def mounts() -> list[tuple[bytes, bytes, str]]:
    """Give number, place and kind of those mounts that others can change unseen."""
    remote = []
    with open("/proc/self/mountinfo", "rb") as lines:
        for line in lines:
            first, _, rest = line.partition(b" - ")
            kind = rest.split(b" ", 1)[0].decode("ascii", "replace")
            if kind.startswith(_REMOTE):
                number, _, _, _, place = first.split(b" ", 5)[:5]
                remote.append((number, _unescaped(place), kind))
    return remote


def _unescaped(place: bytes) -> bytes:
    """Undo the octal escapes that a mount's name is written with."""
    return place.decode("unicode_escape").encode("latin-1") if b"\\" in place else place


class Reader:
    """One inotify instance and the thread that empties it.

    Args:
        bound: how many notices may wait; more are dropped, which is a loss like the kernel's own.

    Raises:
        OSError: the system has no inotify (``ENOSYS``), or the user no instance left (``EMFILE``).
    """

    def __init__(self, bound: int = BOUND) -> None:
        try:
            from watchdog.observers.inotify_c import InotifyFD  # noqa: PLC0415 - absent on other systems
        except Exception as error:  # watchdog raises its own error where libc has no inotify
            raise OSError(errno.ENOSYS, "this system, or its watchdog, has no inotify") from error
        self._bound = bound
        self._due: deque[Notice] = deque()
        self._awake = threading.Event()
        self._lost = False
        self._ids = count(1)
        self._known: dict[int, Any] = {}  # number of a watch → under which id watchdog calls for it
        self.bell = -1  # number of the bell's watch
        self._bell_fd = -1
        self._rung = False
        self._inner: Any = InotifyFD()
        # A program started from here must not keep the instance, with all its watches.
        os.set_inheritable(self._inner._inotify_fd, False)  # noqa: SLF001 - watchdog has no option for it
        self._inner.start()

    # ── what watchdog calls, in its own thread ─────────────────────────────────────────────────

    def on_event(self, event: Any) -> None:
        """Take a notice over; as short as can be, for the kernel's queue has few places."""
        if len(self._due) < self._bound:
            self._due.append(Notice(event.wd, event.mask, event.cookie, event.name, time.monotonic_ns()))
        else:
            self._lost = True
        self._awake.set()

    def on_watch_deleted(self, watch: int) -> None:
        """Note that the kernel has let go of a watch: the directory is gone, or unmounted."""
        self._due.append(Notice(watch, IGNORED, 0, b"", time.monotonic_ns()))
        self._awake.set()

    def on_queue_overflow(self) -> None:
        """Note that the kernel has dropped notices."""
        self._lost = True
        self._awake.set()

    # ── for the thread of the watch ────────────────────────────────────────────────────────────

    def add(self, folder: int, mask: int = CHANGES) -> int:
        """Watch an open directory, whatever its name means by now.

        Args:
            folder: its descriptor.
            mask: what to notice.

        Returns:
            the number of the watch; the same for the same directory.

        Raises:
            OSError: no watch is left (``ENOSPC``), or it may not be watched (``EACCES``).
        """
        return self._add(folder, mask | _ONLY_DIR | _NO_NAMELESS)

    def _add(self, folder: int, mask: int) -> int:
        key = next(self._ids)
        watch = self._inner.add_callback(b"/proc/self/fd/%d/." % folder, mask, self, key)
        if watch < 0:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        before = self._known.get(watch)
        self._known[watch] = key
        if before is not None:  # else each of its notices would come twice
            self._inner.remove_callbacks([(watch, before)])
        return int(watch)

    def remove(self, watches: Iterable[int]) -> None:
        """Let go of watches."""
        keys = [(watch, self._known.pop(watch)) for watch in watches if watch in self._known]
        self._inner.remove_callbacks(keys)

    def take(self) -> list[Notice]:
        """Give what has come, in its order."""
        self._awake.clear()
        taken = [self._due.popleft() for _ in range(len(self._due))]
        for notice in taken:
            if notice.mask & IGNORED:
                self._known.pop(notice.watch, None)
            elif notice.watch == self.bell:
                self._rung = False
        return taken

    def wait(self, seconds: float) -> None:
        """Wait for something to come."""
        self._awake.wait(seconds)

    def wake(self) -> None:
        """End somebody's wait."""
        self._awake.set()

    @property
    def empty(self) -> bool:
        """Whether nothing waits to be taken."""
        return not self._due

    def lost(self) -> bool:
        """Tell, once, whether notices were dropped."""
        lost, self._lost = self._lost, False
        if lost:  # the bell may be among them
            self._rung = False
        return lost

    @property
    def alive(self) -> bool:
        """Whether the thread that reads still runs."""
        return bool(self._inner.is_alive())

    def hears(self, watch: int, seconds: float) -> bool:
        """Wait for a notice of one watch; what else came stays as it was."""
        end = time.monotonic() + seconds
        while not any(notice.watch == watch for notice in list(self._due)):
            self._awake.wait(max(0.0, min(0.01, end - time.monotonic())))
            self._awake.clear()
            if time.monotonic() > end:
                return False
        self._awake.set()
        return True

    def hang_bell(self, folder: str) -> None:
        """Have a directory without a name, whose opening is noticed: what came before has been read then.

        Args:
            folder: where it can be made, for an instant.

        Raises:
            OSError: it cannot.
        """
        name = os.path.join(folder, f"bell-{os.urandom(8).hex()}")
        os.mkdir(name, 0o700)
        try:
            self._bell_fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        finally:
            os.rmdir(name)
        self.bell = self._add(self._bell_fd, OPENED | _ONLY_DIR)

    def ring(self) -> bool:
        """Ring the bell, unless it is ringing still: notices come in their order, and so does this one."""
        if self.bell < 0 or self._rung:
            return False
        self._rung = True
        try:
            os.close(os.open(f"/proc/self/fd/{self._bell_fd}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError:  # no descriptor is left just now
            self._rung = False
        return self._rung

    def close(self) -> None:
        """End the thread and let go of everything."""
        self._inner.stop()
        self._inner.join(_STOP_SECONDS)
        fd, self._bell_fd = self._bell_fd, -1
        if fd >= 0:
            os.close(fd)


def open_reader(root: Root, bound: int, *, polling: bool | None) -> tuple[Reader | None, str | None]:
    """Open a reader that is proven to hear what happens in a root, or give the reason why there is none.

    Args:
        root: the root.
        bound: how many notices may wait.
        polling: True wants none, False nothing else.

    Raises:
        OSError: there is none, and ``polling`` is False (``ENOTSUP``).
    """
    if polling:
        return None, "asked for"
    reason = no_notices(root.fd) if polling is None else None
    if reason is None:
        reader = None
        try:
            reader = Reader(bound)
            if _hears(reader, root):
                return reader, None
            reason = "the system gives no notices here"
        except OSError as error:
            reason = error.strerror or type(error).__name__
        if reader is not None:
            reader.close()
    if polling is False:
        raise OSError(errno.ENOTSUP, f"the root cannot be watched: {reason}")
    return None, reason


def _hears(reader: Reader, root: Root) -> bool:
    """Open the root, and see whether that is noticed; it changes nothing, also where nothing may be."""
    fd = root.open_directory(".")
    try:
        watch = reader.add(fd, OPENED)
    finally:
        os.close(fd)
    os.close(root.open_directory("."))
    heard = reader.hears(watch, CANARY_SECONDS)
    reader.remove([watch])
    return heard
