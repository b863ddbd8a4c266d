"""What the jail's own records explain: which changes at which names are the work of a jail.

Any jail on the same log counts, of this process or another. A record says what the change left at the name
(inode, size, time of content), so what somebody puts there a moment later is not taken for it. Of a whole
directory that was copied, moved or restored only the top is named: beneath it everything counts that has
not changed since the record was written.
"""

from __future__ import annotations

import time
from collections import deque
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from fsjail._follow import Follower
from fsjail._logfiles import Snapshot
from fsjail._record import parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsjail._seen import Seen

_PUTS = {"write", "append", "edit", "mkdir", "restore"}
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00Z")
_MICROSECOND = timedelta(microseconds=1)
_KEEP_SECONDS = 10.0
_MOST_MOVES = 4  # of one directory, one after the other, that are followed back


class Page:
    """What was read of the log in one go.

    Attributes:
        until: a notice that came later is of no change that stands here; None as long as it may be.
        ends: whether a name became free.
    """

    __slots__ = ("ends", "until")

    def __init__(self) -> None:
        self.until: int | None = None
        self.ends = False


class Left(NamedTuple):
    """What a record says of a name: what is there now, or that it is free."""

    at: int  # when the record was written, nanoseconds since the epoch, rounded up
    page: Page
    gone: bool = False
    fact: tuple[int, ...] | None = None  # inode, and of what is no directory size and time of content
    made: bool = False  # an empty directory, of which another jail may have seen the one that came after it

    def fits(self, now: Seen | None) -> bool:
        """Whether what stands there is what the record speaks of."""
        if now is None or self.gone:
            return self.gone and now is None
        if self.fact is None or (self.made and now.is_dir and now.ctime <= self.at):
            return now.ctime <= self.at
        return now.ino == self.fact[0] and (now.is_dir or (now.size, now.mtime) == self.fact[1:])

    def may_be(self, heard: int | None) -> bool:
        """Whether a notice can be of this change, by the time when it came."""
        return heard is None or self.page.until is None or heard <= self.page.until


class Ledger:
    """The recent records of a log, by name.

    Args:
        folder: the folder of the log.
        clock: whether times of files and of records are from one clock; not so on network file systems.
    """

    def __init__(self, folder: str, *, clock: bool) -> None:
        self._folder = folder
        self._clock = clock
        self._follower = Follower(folder)
        self._names: dict[str, list[Left]] = {}
        self._trees: dict[str, list[Left]] = {}
        self._moves: dict[str, dict[str, float]] = {}  # new name → old names, and when that was read
        self._order: deque[tuple[float, dict[str, list[Left]], str, Left]] = deque()
        self.kept: dict[str, float] = {}  # ids that were put into the trash, and when that was read
        self.taken: dict[str, float] = {}  # ids that were restored or purged
        self._from: dict[str, str] = {}  # the names that the kept ones had
        self.page = Page()
        self.problem: str | None = None

    def begin(self) -> None:
        """Leave aside what is in the log already."""
        try:
            with Snapshot(self._folder) as snapshot:
                self._follower.begin(snapshot)
        except OSError as error:
            self.problem = error.strerror or type(error).__name__

    def read(self) -> bool:
        """Read what was added.

        Returns:
            whether there was anything.
        """
        news = False
        try:
            for line in self._follower.poll():
                # Inside a JSON text a quote is escaped, so this cannot be faked by a file name.
                if b',"layer":"jail",' in line and b',"decision":"deny",' not in line:
                    news = self._note(line) or news
        except OSError as error:
            self.problem = error.strerror or type(error).__name__
        else:
            self.problem = None
        return news

    def _note(self, line: bytes) -> bool:
        found = parse(line)
        if found is None or found["layer"] != "jail":
            return False
        # A change that is done, but not confirmed by the disk, has a record with "error" and what it kept.
        if found["decision"] != "allow" and not (found["decision"] == "error" and found["trash_id"]):
            return False
        now = time.monotonic()
        extra = found["extra"] or {}
        op, path, to, trash_id = found["op"], found["path"], found["to"], found["trash_id"]
        at = _nanoseconds(found["time"])
        put = Left(at, self.page, fact=_fact(extra.get("left")), made=op == "mkdir")
        gone = Left(at, self.page, gone=True)
        if op == "purge" or extra.get("restored"):
            self.taken[str(trash_id if op == "purge" else extra["restored"])] = now
        place = path if op in _PUTS else to if op in {"copy", "move"} else None
        if trash_id is not None and op != "purge":
            self.kept[str(trash_id)], self._from[str(trash_id)] = now, place or path
        # A purge too: of an item that an operation had just taken, and could not give back.
        if op in {"delete", "rmdir", "move"} or (op == "purge" and trash_id not in self.kept):
            self._add(now, path, gone, tree=True)
        if place is not None:
            tree = op in {"copy", "move", "restore"}
            if trash_id is not None and (put.fact is None or len(put.fact) == 1):
                # One directory in the place of another: in between the name is free.
                self._add(now, place, gone, tree=tree)
            self._add(now, place, put, tree=tree)
            before = path if op == "move" else self._from.get(str(extra.get("restored")))
            if before is not None and before != place:
                self._moves.setdefault(place, {})[before] = now
        return True

    def _add(self, now: float, path: str, left: Left, *, tree: bool) -> None:
        for table in (self._names, self._trees) if tree else (self._names,):
            table.setdefault(path, []).append(left)
            self.page.ends = self.page.ends or left.gone
            self._order.append((now, table, path, left))

    def explains(
        self, path: str, was: Seen | None, now: Seen | None, heard: int | None, *, listed: bool = False
    ) -> bool:
        """Tell whether a record speaks of what stands at a name.

        Args:
            path: the name.
            was: what stood there before.
            now: what stands there.
            heard: when the notice came, on its clock; None where it was found by looking.
            listed: whether it was there when its directory was listed, and nothing else is known of it.
        """
        if self._names_it(path, now, heard):
            return True
        for left in self._above(path):
            if left.gone and now is None and (was is None or not self._clock or was.ctime <= left.at):
                return True
            # The times of a directory change with what others put into it.
            fits = now is not None and (not self._clock or now.ctime <= left.at or (listed and now.is_dir))
            if fits and not left.gone:
                return True
        return self._moved_along(path, now, heard, _MOST_MOVES)

    def _names_it(self, path: str, now: Seen | None, heard: int | None) -> bool:
        # What was put there is known by its inode; that it was free for a moment explains nothing later.
        return any(
            left.fits(now) and (not left.gone or left.may_be(heard)) for left in self._names.get(path, ())
        )

    def _moved_along(self, path: str, now: Seen | None, heard: int | None, most: int) -> bool:
        """Whether it was done under the name that a directory had until another jail moved it meanwhile."""
        above = path if self._moves and most else ""
        while above:
            above = above.rpartition("/")[0]
            for old in self._moves.get(above, ()):
                name = old + path[len(above) :]
                if self._names_it(name, now, heard) or self._moved_along(name, now, heard, most - 1):
                    return True
        return False

    def put(self, path: str, heard: int | None) -> Left | None:
        """Give the last record that says what was put at a name, and of which a notice can be."""
        lefts = self._names.get(path, ())
        return next((left for left in reversed(lefts) if not left.gone and left.may_be(heard)), None)

    def drop(self, path: str, before: int) -> None:
        """Forget what was put at a name before a moment: it is gone, and that was told."""
        if path in self._names:
            self._names[path] = [left for left in self._names[path] if left.gone or left.at > before]

    def touched(self, path: str) -> bool:
        """Tell whether any recent record speaks of a name or a directory above it."""
        return bool(self._names.get(path)) or any(True for _ in self._above(path))

    def _above(self, path: str) -> Iterator[Left]:
        if not self._trees:
            return
        above = path
        while above:
            above = above.rpartition("/")[0]
            yield from self._trees.get(above, ())

    def turn(self) -> Page:
        """Begin a new page; gives the one before."""
        page, self.page = self.page, Page()
        return page

    def forget(self, seconds: float = _KEEP_SECONDS) -> None:
        """Forget old records; only when no notice waits that one of them may explain."""
        before = time.monotonic() - seconds
        while self._order and self._order[0][0] < before:
            _, table, path, left = self._order.popleft()
            lefts = table.get(path)
            if lefts is not None:
                table[path] = lefts = [one for one in lefts if one is not left]
                if not lefts:
                    del table[path]
        for ids in (self.kept, self.taken, *self._moves.values()):
            for identity in [one for one, when in ids.items() if when < before]:
                del ids[identity]
        self._moves = {name: old for name, old in self._moves.items() if old}
        if len(self._from) > 2 * len(self.kept):
            self._from = {identity: self._from[identity] for identity in self.kept}

    def close(self) -> None:
        """Close the log."""
        self._follower.close()


def _fact(text: object) -> tuple[int, ...] | None:
    if not isinstance(text, str):
        return None
    try:
        return tuple(map(int, text.split(":")))
    except ValueError:
        return None


def _nanoseconds(text: str) -> int:
    """Read a record's time; the end of its microsecond."""
    try:
        return ((datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND + 1) * 1000
    except ValueError:
        return 0
