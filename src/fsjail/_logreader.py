"""Reading an audit log: its events, the last of them, those to come, and the proof of its chain.

What is asked for is in `fsjail._query`, following in `fsjail._follow`, checking in `fsjail._verify`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from fsjail._logfiles import Snapshot, lines_backwards, read_lines
from fsjail._record import FIELDS, Event, Verification, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsjail._query import Moment, Names, Query

_FOLLOW_SECONDS = 0.2


class LogReader(ABC):
    """What can be read in the folder of a log.

    Attributes:
        folder: the folder of the log.
    """

    folder: str

    @abstractmethod
    def _settle(self) -> None:
        """Write what is only counted yet, before somebody looks."""

    def events(
        self,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        denied: bool | None = None,
        decision: Names | None = None,
        actor: Names | None = None,
        op: Names | None = None,
        layer: Names | None = None,
        path: Names | None = None,
    ) -> Iterator[Event]:
        """Read the log, oldest record first, through the rotated files, without holding it in memory.

        Args:
            since: leave out older records; a datetime or ISO 8601 text (local time if it has no zone), or
                seconds since the epoch.
            until: leave out newer records; as ``since``.
            denied: True for denials only, False for everything else.
            decision: ``"allow"``, ``"deny"``, ``"error"``, or several of them.
            actor: only records of this name, or of one of these.
            op: only this operation, or one of these.
            layer: only what this layer saw, or one of these.
            path: a gitignore pattern, or several: what one matches, also by a folder above it; the other end
                of a copy or move and the canonical name count too.

        Returns:
            An iterator; it sees what was written before its first step. Damaged lines are left out.

        Raises:
            OSError: the folder or a file of the log cannot be read.
            ValueError: the log is closed, ``since`` or ``until`` is no date, or a pattern can never match.
        """
        from fsjail._query import Query  # noqa: PLC0415 - imported when needed: start-up time

        self._settle()
        query = Query(
            since=since,
            until=until,
            denied=denied,
            decision=decision,
            actor=actor,
            op=op,
            layer=layer,
            path=path,
        )
        return self._read(query)

    def tail(self, count: int, **wanted: Any) -> tuple[list[Event], int]:
        """Read the last events, from behind; only those are decoded.

        Args:
            count: how many.
            wanted: as for `events`.

        Returns:
            The events, oldest first, and how many records match in all.

        Raises:
            OSError, ValueError: as for `events`.
        """
        from fsjail._query import Query  # noqa: PLC0415 - imported when needed: start-up time

        self._settle()
        query = Query(**wanted)
        with Snapshot(self.folder) as snapshot:
            return _tail(snapshot, query, count)

    def follow(
        self, *, last: int = 0, wait: Callable[[], object] | None = None, **wanted: Any
    ) -> Iterator[Event]:
        """Give events as they are written, by any process, until the caller has enough.

        The log need not exist yet, and may be rotated or removed meanwhile.

        Args:
            last: how many of those that are there already come first; -1 for all.
            wait: called when there is nothing new; True ends the iteration. It waits 0.2 s if left out.
            wanted: as for `events`.

        Returns:
            An iterator without an end of its own.

        Raises:
            OSError, ValueError: as for `events`.
        """
        from fsjail._query import Query  # noqa: PLC0415 - imported when needed: start-up time

        self._settle()
        return self._follow(Query(**wanted), last, wait or (lambda: time.sleep(_FOLLOW_SECONDS)))

    def verify(self) -> Verification:
        """Check every record against its hash, its predecessor and the head.

        Returns:
            What was found; an absent log is in order.

        Raises:
            OSError: the folder cannot be read.
            ValueError: the log is closed.
        """
        from fsjail._verify import Check  # noqa: PLC0415 - imported when needed: start-up time

        self._settle()
        with Snapshot(self.folder) as snapshot:
            return Check(snapshot).run()

    def _read(self, query: Query) -> Iterator[Event]:
        with Snapshot(self.folder) as snapshot:
            for fd, size in snapshot.readable():
                for line in read_lines(fd, size):
                    if query.wants(line) and (found := parse(line)) is not None:
                        yield _event(found)

    def _follow(self, query: Query, last: int, wait: Callable[[], object]) -> Iterator[Event]:
        from fsjail._follow import Follower  # noqa: PLC0415 - imported when needed: start-up time

        follower = Follower(self.folder)
        try:
            if last >= 0:
                with Snapshot(self.folder) as snapshot:
                    follower.begin(snapshot)
                    first = _tail(snapshot, query, last)[0] if last else []
                yield from first
            while True:
                for line in follower.poll():
                    if query.wants(line) and (found := parse(line)) is not None:
                        yield _event(found)
                if wait():
                    return
        finally:
            follower.close()


def _tail(snapshot: Snapshot, query: Query, count: int) -> tuple[list[Event], int]:
    found: list[Event] = []
    seen = 0
    for fd, size in reversed(snapshot.readable()):
        for line in lines_backwards(fd, size):
            if query.wants(line):
                if len(found) < count:
                    record = parse(line)
                    if record is None:
                        continue
                    found.append(_event(record))
                seen += 1
    return found[::-1], seen


def _event(record: dict[str, Any]) -> Event:
    return Event(*[record[field] for field in FIELDS])
