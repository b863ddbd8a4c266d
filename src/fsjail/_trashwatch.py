"""What can be seen of tampering with the trash: a kept item that is gone, or a kept file that was changed.

The jail itself works in its folder all the time, so only the top of ``Trash/files`` is watched: a known item
leaves it by a restore or a purge, which have records, and nothing is ever written into it.

Does not see: what changes inside a kept directory, info files, or an item that was put there.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from fsjail._errors import Moved
from fsjail._seen import Seen, alike
from fsjail._watched import CREATED, DELETED, IGNORED, META, MOVED_FROM, MOVED_TO, WRITTEN

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsjail._ledger import Ledger
    from fsjail._watched import Notice, Reader

_FOLD_SECONDS = 1.0  # writes that follow each other are one report as long


class TrashWatch:
    """A watch on the kept items of one trash.

    Args:
        open_items: opens the folder that holds the items; raises ``OSError`` as long as there is none.
        reader: sets the watch; None where it is polled.
        ledger: the records of restores and purges.
    """

    def __init__(self, open_items: Callable[[], int], reader: Reader | None, ledger: Ledger) -> None:
        self._open_items = open_items
        self._reader = reader
        self._ledger = ledger
        self._fd = -1
        self.watch = -1
        self.names: dict[str, Seen] = {}
        self._known: set[str] = set()  # of these a record tells, or they were there at the beginning
        self._doubts: dict[str, tuple[int, Seen]] = {}  # gone items: when that was seen, and what they were
        self._replaced: dict[str, int] = {}
        self._found: list[tuple[str, str]] = []
        self._writing: dict[str, float] = {}

    def attach(self, *, first: bool = False) -> None:
        """Begin to watch, as soon as there is a trash.

        Args:
            first: whether what is there has been there before.
        """
        if self._fd >= 0:
            return
        with suppress(OSError, Moved):
            self._fd = self._open_items()
            if self._reader is not None:
                self.watch = self._reader.add(self._fd)
            for name in os.listdir(self._fd):
                self._look(name)
            if first:  # later, one may be there for a moment only, and get its record when it stays
                self._known |= self.names.keys()

    def close(self) -> None:
        """Let go of the folder."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        if self._reader is not None and self.watch >= 0:
            self._reader.remove([self.watch])
        self.watch = -1
        self.names.clear()

    def heard(self, notice: Notice) -> None:
        """Take in what a notice says of an item."""
        if notice.mask & IGNORED:
            self.watch = -1
            self.close()
            return
        name, mask = os.fsdecode(notice.name), notice.mask
        if not name:
            return
        was = self.names.get(name)
        if mask & (MOVED_FROM | DELETED):
            if was is not None:
                self._doubts[name] = (time.monotonic_ns(), self.names.pop(name))
            return
        now = self._look(name)
        if was is None or now is None:
            return
        if mask & WRITTEN:
            self._tell("write", name)
        elif mask & META and was.ctime != now.ctime:
            self._tell("attributes", name)
        elif mask & (CREATED | MOVED_TO) and was.ino != now.ino:
            self._replaced[name] = time.monotonic_ns()

    def poll(self) -> None:
        """Compare all items with what was last seen; and find out whether the folder is gone."""
        if self._fd < 0:
            return
        try:
            listed = set(os.listdir(self._fd))
            gone = not os.fstat(self._fd).st_nlink
        except OSError:
            return
        for name in self.names.keys() - listed:
            self._doubts[name] = (time.monotonic_ns(), self.names.pop(name))
        for name in listed:
            was, now = self.names.get(name), self._look(name)
            if was is not None and now is not None and not alike(was, now):
                if was.ino == now.ino:
                    self._tell("write", name)
                else:
                    self._replaced[name] = time.monotonic_ns()
        if gone:
            self.close()

    def settle(self, certain: int) -> list[tuple[str, str]]:
        """Give what was found: operation and id.

        Args:
            certain: changes that began before have their records in what was read.
        """
        for name in self._ledger.kept.keys() - self._known:
            self._known.add(name)
            if self._fd >= 0:
                self._look(name)  # while it was put there it had its old name too
        for name, at in list(self._replaced.items()):
            # A change that caught another one half way puts into its item what that had meant to keep.
            if name in self._ledger.kept or at <= certain:
                del self._replaced[name]
                if name not in self._ledger.kept:
                    self._tell("replace", name)
        for name, (at, was) in list(self._doubts.items()):
            ours = name in self._ledger.taken
            if not ours and at > certain:
                continue
            del self._doubts[name]
            # One with another name was not kept yet: recovery gives it up; the other name has the content.
            # One that no record tells of was given back by the operation that had taken it.
            if not ours and not (was.is_file and was.links > 1) and name in self._known:
                self._found.append(("delete", name))
            self._known.discard(name)
        found, self._found = self._found, []
        return found

    @property
    def in_doubt(self) -> bool:
        """Whether something happened to an item of which a record may still come."""
        return bool(self._doubts or self._replaced)

    def _look(self, name: str) -> Seen | None:
        try:
            seen = Seen.of(os.stat(name, dir_fd=self._fd, follow_symlinks=False))
        except OSError:
            return None
        self.names[name] = seen
        return seen

    def _tell(self, op: str, name: str) -> None:
        now = time.monotonic()
        self._writing = {one: at for one, at in self._writing.items() if now - at < _FOLD_SECONDS}
        if name not in self._writing:
            self._writing[name] = now
            self._found.append((op, name))
