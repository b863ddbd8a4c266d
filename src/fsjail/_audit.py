"""The audit log: one JSON object a line, chained by SHA-256, shared by threads and processes.

In the log's folder (0700) are ``audit.jsonl`` (0600), the files that rotation made of it
(``audit.1.jsonl`` is the newest), ``lock`` and ``head``. This is the public face and the counting of floods;
the record's text is in `fsjail._record`, the files in `fsjail._logfiles`, appending, repair and rotation in
`fsjail._chain`, reading in `fsjail._logreader`, who is told of each record in `fsjail._subscribers`.

- **Lost records** (a disk that was full): counted, and told in a ``repair`` record when writing works again.
- Records are not fsynced: a killed process loses nothing, a power cut may lose the last seconds.

Does not stop: whoever may write the folder can make up a whole new chain with a new head. Copy the head
to another machine if that matters.
"""

from __future__ import annotations

import atexit
import contextlib
import errno as errnos
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Self

from fsjail._chain import Chain
from fsjail._logfiles import LOG
from fsjail._logreader import LogReader
from fsjail._record import Author, Entry, Event, Verification
from fsjail._subscribers import Subscribers

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType, TracebackType

    from fsjail._record import Rule

__all__ = ["AuditLog", "Event", "Verification"]

_FLOOD_SECONDS, _FLOOD_COUNT = 1.0, 1000


class AuditLog(LogReader):
    """The log of one jail; safe for threads, for several processes and after a fork.

    Identical denials that follow each other within a second are counted: the first is written at once, the
    rest as one record with ``count`` at the next other record, the next look at the log, every 1000th,
    and on `close` or exit. A process that is killed loses that count, never the first record.

    Attributes:
        problem: why the log could not be written, the last time that it could not; None if it always could.
    """

    def __init__(
        self,
        folder: str,
        *,
        actor: str | None = None,
        record: str = "denied+changes",
        required: bool = False,
        max_bytes: int = 16 * 2**20,
        keep: int = 8,
    ) -> None:
        """Name the log; nothing is opened or made before the first record.

        Args:
            folder: the folder of the log, made with mode 0700 by the first record.
            actor: the name of who acts, for every record of this object.
            record: ``"denied+changes"``, or ``"all"`` for reads too.
            required: raise ``OSError`` where a record cannot be written; otherwise warn once and go on.
            max_bytes: size of a file, in bytes, at which it is rotated.
            keep: how many rotated files stay.

        Raises:
            ValueError: for another value of ``record``, or limits below 1.
        """
        if record not in ("denied+changes", "all"):
            msg = f'record must be "denied+changes" or "all", not {record!r}'
            raise ValueError(msg)
        if max_bytes < 1 or keep < 1:
            msg = "max_bytes and keep must be at least 1"
            raise ValueError(msg)
        self.folder = os.path.abspath(folder)
        self.run = os.urandom(8).hex()
        self.problem: str | None = None
        self._actor = actor
        self._record = record
        self._required = required
        self._closed = False
        self._warned = False
        self._busy = False
        self._chain = Chain(self.folder, max_bytes, keep, self._repair)
        self._subscribers = Subscribers()
        self._fresh()
        _LIVE.add(self)

    @property
    def wants_reads(self) -> bool:
        """Whether allowed reads are to be recorded; the caller skips them otherwise."""
        return self._record == "all"

    def record(
        self,
        op: str,
        path: str,
        *,
        decision: str,
        why: str,
        to: str | None = None,
        resolved: str | None = None,
        rule: Rule | None = None,
        errno: int | None = None,
        trash_id: str | None = None,
        layer: str = "jail",
        extra: dict[str, Any] | None = None,
        tool: str | None = None,
        call_id: str | None = None,
    ) -> Event | None:
        """Append one record.

        Args:
            op: what was tried.
            path: on which path, as the caller spelled it.
            decision: ``"allow"``, ``"deny"`` or ``"error"``.
            why: the label of the decision.
            to: the other path of a move or copy.
            resolved: the canonical name, where known.
            rule: the rule that decided.
            errno: the error number, where the operation failed.
            trash_id: what was saved.
            layer: who saw it.
            extra: small facts that undo needs; never file contents.
            tool: the agent's tool.
            call_id: the agent's id of the call.

        Returns:
            The event; None if it was only counted (a flood) or could not be written.

        Raises:
            OSError: the log is required and cannot be written (errno EIO, whatever the cause).
            ValueError: the log is closed.
        """
        redact = self._redact or self._prepare()
        why = redact.message(why)
        if decision != "allow" or layer != "jail":  # else undo needs the very names
            path, to, resolved = redact.name(path), to and redact.name(to), resolved and redact.name(resolved)
            extra = redact.facts(extra) if extra and layer != "audit" else extra
        entry = Entry(
            op, path, decision, why, to, resolved, rule, errno, trash_id, layer, extra, tool, call_id
        )
        key = (op, path, to, why, layer, tool) if decision == "deny" else None
        try:
            return self._place(entry, key)
        finally:
            self._tell()

    def _place(self, entry: Entry, key: tuple[str | None, ...] | None) -> Event | None:
        """Write or count; under the log's own lock."""
        with self._lock:
            self._check_open()
            if self._busy:  # a signal handler or audit hook interrupted this very method
                self._lost += 1
                return None
            self._busy = True
            try:
                if key is None and self._flood_key is None:
                    return self._write(entry, 1)
                return self._write_or_count(entry, key)
            finally:
                self._idle()

    def subscribe(
        self, callback: Callable[[Event], object], *, closing: Callable[[], object] | None = None
    ) -> Callable[[], None]:
        """Have a function called with each record that this object writes, after it is written.

        In the order of the log, one record at a time, by a thread that wrote one, outside of the log's
        locks. A flood comes as the first denial and later as one record with its ``count``. What the function
        raises is told once through ``logging`` ("fsjail") and never reaches the operation. A record
        that is made by the function itself is written, but not told.

        Args:
            callback: gets the event; what it does holds up the operation, so let slow things wait elsewhere.
            closing: called once behind the last event, when the log is closed or the process ends.

        Returns:
            A function that ends the subscription; ``closing`` is not called then.
        """
        if closing is not None:
            _ENDS.add(self._subscribers)
        return self._subscribers.add(callback, closing)

    def demand(self) -> None:
        """Refuse to go on, before anything is changed, where the log is required and cannot be written.

        Raises:
            OSError: the log is required and cannot be written (errno EIO, whatever the cause).
        """
        if self._required:
            with self._lock:
                self._check_open()
                if self._redact is None:
                    self._prepare()
                try:
                    self._chain.prepare()
                    self._note()
                except OSError as error:
                    self._failed(error)
            self._tell()

    def close(self) -> None:
        """Write a pending count and close the descriptors; a second call does nothing."""
        with self._lock:
            if not self._closed:
                self._settle(tell=False)
                self._closed = True
                if not self._busy:  # else a signal handler closes: the interrupted call tidies up
                    self._chain.forget()
        self._subscribers.close()
        _ENDS.discard(self._subscribers)
        _LIVE.discard(self)

    def __enter__(self) -> Self:
        """Give the log itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the log."""
        self.close()

    def __del__(self) -> None:
        """Close the descriptors; the lock is not taken here, which could be in the middle of anything."""
        if hasattr(self, "_chain"):
            self._chain.forget()

    def _fresh(self) -> None:
        """Set what is this process's own; runs again in a forked child."""
        self._chain.forget()  # flock belongs to the open file, which parent and child would share
        self._lock = threading.RLock()
        self._busy = False
        self._lost = 0
        self._flood_key: tuple[str | None, ...] | None = None
        self._flood_since = 0.0
        self._repeats = 0
        self._last: Entry | None = None
        self._redact: ModuleType | None = None
        self._subscribers.fresh()

    def _prepare(self) -> ModuleType:
        """Get ready for the first record of this process; a jail that only looks does not pay for it."""
        from fsjail import _redact  # noqa: PLC0415 - imported when needed: start-up time

        self._author = Author(self.run, self._actor, _redact.argv())
        self._redact = _redact
        return _redact

    def _check_open(self) -> None:
        if self._closed:
            msg = "the audit log is closed"
            raise ValueError(msg)

    def _settle(self, *, tell: bool = True) -> None:
        """Write a pending count before somebody looks."""
        with self._lock:
            self._check_open()
            if self._busy:
                return
            self._busy = True
            try:
                with contextlib.suppress(OSError):  # remembered in .problem
                    self._flush()
            finally:
                self._idle()
        if tell:
            self._tell()

    def _idle(self) -> None:
        self._busy = False
        if self._closed:
            self._chain.forget()

    def _flush(self) -> None:
        if self._last is not None:
            entry, count = self._last, self._repeats
            self._last, self._repeats, self._flood_key = None, 0, None
            self._write(entry, count)

    def _write_or_count(self, entry: Entry, key: tuple[str | None, ...] | None) -> Event | None:
        now = time.monotonic()
        if key is not None and key == self._flood_key:
            self._repeats += 1
            self._last = entry
            if now - self._flood_since < _FLOOD_SECONDS and self._repeats < _FLOOD_COUNT:
                return None
            count, self._repeats, self._last = self._repeats, 0, None
        else:
            self._flush()
            count = 1
        self._flood_key, self._flood_since = key, now
        return self._write(entry, count)

    def _write(self, entry: Entry, count: int) -> Event | None:
        try:
            if self._lost:
                lost = self._lost
                facts = {"lost": lost}
                placed = self._chain.append(self._repair("records lost", facts))
                self._chain.repairs.append(("records lost", facts, placed))
                self._lost -= lost
            placed = self._chain.append(self._author.fields(entry, count))
        except OSError as error:
            self._lost += count
            self._failed(error)
            return None
        event = self._author.event(entry, count, *placed)
        self._note(event)
        return event

    def _repair(self, why: str, extra: dict[str, Any]) -> str:
        return self._author.fields(_repair_entry(why, extra), 1)

    def _note(self, event: Event | None = None) -> None:
        """Leave what was written for the subscribers, in its order."""
        repairs, self._chain.repairs = self._chain.repairs, []
        if self._subscribers:
            for why, facts, placed in repairs:
                self._subscribers.put(self._author.event(_repair_entry(why, facts), 1, *placed))
            if event is not None:
                self._subscribers.put(event)

    def _failed(self, error: OSError) -> None:
        """Tell that a record was not written.

        EIO stands for every cause: a FileNotFoundError from here would look like an answer about the
        agent's file. No path either: the sentence can reach the agent.
        """
        sentence = f"the audit log cannot be written: {error.strerror or type(error).__name__}"
        self.problem = sentence
        if self._required:
            raise OSError(errnos.EIO, sentence) from None

    def _tell(self) -> None:
        """Tell subscribers and, once, that the log cannot be written; behind the lock.

        A logging handler opens files: under a guard in another thread that waits for our lock, while we
        would wait for the handler's.
        """
        if self._subscribers:
            self._subscribers.tell()
        if self.problem is not None and not self._warned and not self._required:
            self._warned = True
            import logging  # noqa: PLC0415 - imported when needed: start-up time

            logging.getLogger("fsjail").warning("%s (in %s); going on without", self.problem, self.folder)


def _repair_entry(why: str, extra: dict[str, Any]) -> Entry:
    return Entry("repair", LOG, "error", f"audit: {why}", layer="audit", extra=extra)


_LIVE: weakref.WeakSet[AuditLog] = weakref.WeakSet()
_ENDS: set[Subscribers] = (
    set()
)  # of logs that were not closed, perhaps dropped: what waits there must still go


@atexit.register
def _flush_all() -> None:
    for log in list(_LIVE):
        log._settle()  # noqa: SLF001 - the same module; not closed: a later exit handler may still write
    for subscribers in list(_ENDS):
        subscribers.close()


def _forked() -> None:
    for log in list(_LIVE):
        log._fresh()  # noqa: SLF001 - the same module


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forked)
