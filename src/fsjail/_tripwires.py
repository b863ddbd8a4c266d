"""Tripwires: files and folders outside the root that nobody is expected to change.

They are names of the host that its owner has given, so they are looked up by path, and a link that he named
is followed to what it means; links beneath it are not.
"""

from __future__ import annotations

import os
import stat as stat_
import time
from typing import TYPE_CHECKING, NamedTuple

from fsjail._seen import Seen
from fsjail._watched import CLOSED, CREATED, IGNORED, MOVED_TO, WRITTEN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsjail._watched import Notice, Reader

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
MOST = 20_000  # names beneath one tripwire
_FOLD_SECONDS = 1.0  # writes into a file that is still open are one report as long


class Tripped(NamedTuple):
    """A change at or beneath a tripwire."""

    wire: str
    path: str
    op: str
    passing: bool = False


class _Wire:
    """One tripwire and what was last seen of it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.names: dict[str, Seen] = {}
        self.folders: dict[int, tuple[str, str | None]] = {}  # watch → folder, and the one name that counts
        self.dirty = False
        self.hints: dict[str, int] = {}  # names that had a notice, and its bits
        self.writing: dict[str, float] = {}  # names that were told while somebody still writes


class Tripwires:
    """All tripwires of a watch.

    Args:
        paths: absolute.
        reader: sets the watches; None where they are polled.
        skipped: device and inode of directories that are the jail's own business.

    Attributes:
        blind: what cannot be seen, with the reason.
    """

    def __init__(
        self, paths: Iterable[str], reader: Reader | None, skipped: frozenset[tuple[int, int]]
    ) -> None:
        self._reader = reader
        self._skipped = skipped
        self._wires = [_Wire(path) for path in dict.fromkeys(paths)]
        self._watches: dict[tuple[int, int], int] = {}
        self.blind: dict[str, str] = {}
        for wire in self._wires:
            wire.names = self._look(wire)

    def heard(self, notice: Notice) -> None:
        """Note which tripwire a notice is about."""
        if notice.mask & IGNORED:
            self._watches = {key: watch for key, watch in self._watches.items() if watch != notice.watch}
        leaf = os.fsdecode(notice.name)
        for wire in self._wires:
            folder, only = wire.folders.get(notice.watch, (None, None))
            if folder is None or (only is not None and leaf and leaf != only):
                continue
            wire.dirty = True
            path = os.path.join(folder, leaf)
            if only is None or path in (wire.path, *wire.names):
                wire.hints[path] = wire.hints.get(path, 0) | notice.mask

    def check(self, *, everything: bool) -> list[Tripped]:
        """Compare what had a notice, or everything, with what was last seen."""
        found: list[Tripped] = []
        for wire in self._wires:
            if everything and not wire.dirty:  # a folder above it may have been renamed
                wire.dirty = self._reader is None or _lstat(wire.path) != wire.names.get(wire.path)
            if wire.dirty:
                found += self._compare(wire)
        return found

    def _compare(self, wire: _Wire) -> list[Tripped]:
        wire.dirty = False
        was, hints, wire.hints = wire.names, wire.hints, {}
        wire.names = now = self._look(wire)
        found = []
        for path in [*was, *(path for path in now if path not in was)]:
            old, new = was.get(path), now.get(path)
            if _differs(old, new):
                found.append(Tripped(wire.path, path, _op(old, new)))
        told = {one.path for one in found}
        for path, mask in hints.items():
            if path in told:
                continue
            if mask & WRITTEN:
                found.append(Tripped(wire.path, path, "write"))
            elif mask & (CREATED | MOVED_TO) and path not in was and path not in now:
                found.append(Tripped(wire.path, path, "create", passing=True))
        return [one for one in found if not self._belongs(wire, one, hints.get(one.path, 0))]

    @staticmethod
    def _belongs(wire: _Wire, one: Tripped, mask: int) -> bool:
        """Whether it belongs to what was told already: a file that is still being written."""
        moment = time.monotonic()
        wire.writing = {path: at for path, at in wire.writing.items() if moment - at < _FOLD_SECONDS}
        known = one.path in wire.writing
        if mask & CLOSED:
            wire.writing.pop(one.path, None)
        elif not known and (mask & (CREATED | WRITTEN) or not mask):  # seen before its notice came
            wire.writing[one.path] = moment
        return known and one.op in {"write", "attributes"}

    # ── looking ────────────────────────────────────────────────────────────────────────────────

    def _look(self, wire: _Wire) -> dict[str, Seen]:
        """Watch and list a tripwire as it is now; the watches come first."""
        names: dict[str, Seen] = {}
        wire.folders = {}
        self.blind.pop(wire.path, None)
        starts = [wire.path]
        seen = _lstat(wire.path)
        if seen is not None and seen.is_link:
            starts.append(os.path.realpath(wire.path))
        for start in starts:
            self._watch_above(wire, start)
            self._walk(wire, start, names)
        if self._reader is not None:
            used = {watch for each in self._wires for watch in each.folders}
            unused = {key: watch for key, watch in self._watches.items() if watch not in used}
            self._reader.remove(unused.values())
            for key in unused:
                del self._watches[key]
        return names

    def _watch_above(self, wire: _Wire, path: str) -> None:
        """Watch the folder that holds a name, or the nearest one that there is, for the next name."""
        while path != "/":
            path, leaf = os.path.split(path)
            try:
                fd = os.open(path, _FOLDER)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                self.blind[wire.path] = error.strerror or "it cannot be opened"
                return
            try:
                self._watch(wire, fd, path, leaf)
            finally:
                os.close(fd)
            return

    def _walk(self, wire: _Wire, start: str, names: dict[str, Seen]) -> None:
        pending = [start]
        while pending:
            path = pending.pop()
            seen = _lstat(path)
            if seen is None:
                continue
            if len(names) >= MOST:
                self.blind[wire.path] = f"only its first {MOST:,} names are watched"
                return
            names[path] = seen
            if not seen.is_dir:
                continue
            try:
                fd = os.open(path, _FOLDER | os.O_NOFOLLOW)
            except OSError as error:
                if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
                    self.blind[wire.path] = error.strerror or "it cannot be opened"
                continue
            try:
                st = os.fstat(fd)
                if (st.st_dev, st.st_ino) not in self._skipped:
                    self._watch(wire, fd, path, None)
                    pending += [os.path.join(path, name) for name in os.listdir(fd)]
            finally:
                os.close(fd)

    def _watch(self, wire: _Wire, fd: int, path: str, leaf: str | None) -> None:
        if self._reader is None:
            return
        st = os.fstat(fd)
        watch = self._watches.get((st.st_dev, st.st_ino))
        if watch is None:
            try:
                watch = self._reader.add(fd)
            except OSError as error:
                self.blind[wire.path] = error.strerror or "it cannot be watched"
                return
            self._watches[st.st_dev, st.st_ino] = watch
        if leaf is None or watch not in wire.folders:  # all names of a folder go before one of them
            wire.folders[watch] = (path, leaf)


def _lstat(path: str) -> Seen | None:
    try:
        return Seen.of(os.stat(path, follow_symlinks=False))
    except OSError:
        return None


def _differs(one: Seen | None, other: Seen | None) -> bool:
    if one is None or other is None:
        return one is not other
    if one.is_dir and other.is_dir:
        return (one.ino, one.mode) != (other.ino, other.mode)
    return one[:5] != other[:5]


def _op(was: Seen | None, now: Seen | None) -> str:
    """Name what happened."""
    if was is None or now is None:
        return "create" if was is None else "delete"
    if was.ino != now.ino or now.is_link or stat_.S_IFMT(was.mode) != stat_.S_IFMT(now.mode):
        return "replace"
    return "attributes" if (was.size, was.mtime) == (now.size, now.mtime) or now.is_dir else "write"
