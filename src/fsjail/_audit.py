"""The audit log: one JSON object a line, chained by SHA-256, shared by threads and processes.

In the log's folder (0700) are ``audit.jsonl`` (0600), the files that rotation made of it
(``audit.1.jsonl`` is the newest), ``lock`` and ``head``. A record's ``hash`` is the SHA-256, in hex,
of ``prev`` followed by the record's own bytes without ``,"hash":"…"``. ``head`` is one line of fixed width
(first and last ``seq``, last ``hash``, size of ``audit.jsonl``), written in place after each record.

- **Torn line** (killed while writing): the next append ends it with a newline and adds a ``repair``
  record that holds its length and SHA-256. Nothing is ever taken out of the log.
- **Cut or replaced tail**: the next append goes on from what ``head`` remembers, not from what the
  file says, so the gap in the chain stays visible to `AuditLog.verify` for good.
- **Lost records** (a disk that was full): counted, and told in a ``repair`` record when writing works again.
- Records are not fsynced: a killed process loses nothing, a power cut may lose the last seconds.

Does not stop: whoever may write the folder can make up a whole new chain with a new head. Copy the head
to another machine if that matters.
"""

from __future__ import annotations

import atexit
import contextlib
import errno as errnos
import hashlib
import json
import os
import re
import secrets
import stat
import sys
import threading
import time
import weakref
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as _quote
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from types import TracebackType

try:
    import fcntl
except ImportError:  # Windows: the import must work, so that Jail() can refuse in clear words
    fcntl = None  # type: ignore[assignment]

_LOG, _LOCK, _HEAD = "audit.jsonl", "lock", "head"
_NONE = "0" * 64
_SAFELY = (  # a planted link is not followed, a planted FIFO does not block
    getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
)
_LOCK_SECONDS = 10.0  # a stopped process that holds the lock must not hang an agent
_FLOOD_SECONDS, _FLOOD_COUNT = 1.0, 1000
_NAME, _PATH, _WHY = 256, 4096, 8192  # limits in characters; no legal path is longer
_ARGV = 32
_PROBLEMS = 50
_SEAL = re.compile(rb',"hash":"([0-9a-f]{64})"\}\Z')
_ROTATED = re.compile(r"audit\.([1-9][0-9]{0,5})\.jsonl\Z")
_FIRST = re.compile(rb'\{"v":[0-9]+,"seq":([0-9]+),')


@dataclass(frozen=True, slots=True)
class Event:
    """One record of the log: what was tried and what became of it."""

    v: int
    seq: int
    time: str
    run: str
    layer: str
    op: str
    path: str
    to: str | None
    resolved: str | None
    decision: str
    why: str
    rule: dict[str, Any] | None
    errno: int | None
    actor: dict[str, Any]
    trash_id: str | None
    count: int
    extra: dict[str, Any] | None
    prev: str
    hash: str


_FIELDS = tuple(Event.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Verification:
    """What `AuditLog.verify` found; true when the chain holds.

    Attributes:
        ok: no record was edited, dropped, swapped or cut.
        records: how many whole records were read.
        problems: sentences with file, line and seq, the first bad record first. When ``ok``, they only name
            torn records that were repaired and records that were lost to a full disk.
    """

    ok: bool
    records: int
    problems: tuple[str, ...]

    def __bool__(self) -> bool:
        return self.ok


class _Rule(Protocol):
    """What a rule needs to be logged."""

    @property
    def pattern(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def line(self) -> int | None: ...


class _Entry(NamedTuple):
    """What the caller said about one event."""

    op: str
    path: str
    decision: str
    why: str
    to: str | None = None
    resolved: str | None = None
    rule: _Rule | None = None
    errno: int | None = None
    trash_id: str | None = None
    layer: str = "jail"
    extra: dict[str, Any] | None = None
    tool: str | None = None
    call_id: str | None = None


class _Head(NamedTuple):
    """The line in the head file."""

    first: int  # seq of the oldest record that is kept
    seq: int
    size: int  # of audit.jsonl
    hash: str

    def line(self) -> bytes:
        return (
            f'{{"v":1,"first":{self.first:20d},"seq":{self.seq:20d},"size":{self.size:20d},'
            f'"hash":"{self.hash}"}}\n'
        ).encode("ascii")


class AuditLog:
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
        self.run = secrets.token_hex(8)
        self.problem: str | None = None
        self._actor = actor
        self._record = record
        self._required = required
        self._closed = False
        self._warned = False
        self._busy = False
        self._chain = _Chain(self.folder, max_bytes, keep, self._repair)
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
        rule: _Rule | None = None,
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
        entry = _Entry(
            op, path, decision, why, to, resolved, rule, errno, trash_id, layer, extra, tool, call_id
        )
        key = (op, path, to, why, layer, tool) if decision == "deny" else None
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

    def events(
        self,
        *,
        since: datetime | str | float | None = None,
        denied: bool | None = None,
        actor: str | None = None,
    ) -> Iterator[Event]:
        """Read the log, oldest record first, through the rotated files, without holding it in memory.

        Args:
            since: leave out older records; a datetime or ISO 8601 text (local time if it has no zone), or
                seconds since the epoch.
            denied: True for denials only, False for everything else.
            actor: only records of this name.

        Returns:
            An iterator; it sees what was written before its first step. Damaged lines are left out.

        Raises:
            OSError: the folder or a file of the log cannot be read.
            ValueError: the log is closed, or ``since`` is no date.
        """
        self._settle()
        return self._read(None if since is None else _utc(since), denied, actor)

    def verify(self) -> Verification:
        """Check every record against its hash, its predecessor and the head.

        Returns:
            What was found; an absent log is in order.

        Raises:
            OSError: the folder cannot be read.
            ValueError: the log is closed.
        """
        self._settle()
        with _Snapshot(self.folder) as snapshot:
            return _Check(snapshot).run()

    def close(self) -> None:
        """Write a pending count and close the descriptors; a second call does nothing."""
        with self._lock:
            if not self._closed:
                self._settle()
                self._closed = True
                if not self._busy:  # else a signal handler closes: the interrupted call tidies up
                    self._chain.forget()
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
        self._last: _Entry | None = None
        self._who: dict[str, Any] = {
            "name": _cut(self._actor, _NAME),
            "tool": None,
            "call_id": None,
            "pid": os.getpid(),
            "exe": _cut(sys.executable or None, _PATH),
            "argv": _argv(),
        }
        self._who_head = f'"actor":{{"name":{_text(self._actor, _NAME)},"tool":'
        own = _dump({key: self._who[key] for key in ("pid", "exe", "argv")})
        self._who_tail = f",{own[1:]}"

    def _check_open(self) -> None:
        if self._closed:
            msg = "the audit log is closed"
            raise ValueError(msg)

    def _settle(self) -> None:
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

    def _idle(self) -> None:
        self._busy = False
        if self._closed:
            self._chain.forget()

    def _flush(self) -> None:
        if self._last is not None:
            entry, count = self._last, self._repeats
            self._last, self._repeats, self._flood_key = None, 0, None
            self._write(entry, count)

    def _write_or_count(self, entry: _Entry, key: tuple[str | None, ...] | None) -> Event | None:
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

    def _write(self, entry: _Entry, count: int) -> Event | None:
        try:
            if self._lost:
                lost = self._lost
                self._chain.append(self._repair("records lost", {"lost": lost}))
                self._lost -= lost
            seq, moment, prev, digest = self._chain.append(self._fields(entry, count))
        except OSError as error:
            self._lost += count
            self._failed(error)
            return None
        op, path, decision, why, to, resolved, rule, errno, trash_id, layer, extra, tool, call_id = entry
        who = self._who.copy()
        who["tool"], who["call_id"], who["argv"] = _cut(tool, _NAME), _cut(call_id, _NAME), [*who["argv"]]
        return Event(
            1,
            seq,
            moment,
            self.run,
            layer,
            op,
            path if len(path) <= _PATH else path[:_PATH],
            _cut(to, _PATH),
            _cut(resolved, _PATH),
            decision,
            why if len(why) <= _WHY else why[:_WHY],
            _rule(rule),
            errno,
            who,
            trash_id,
            count,
            extra,
            prev,
            digest,
        )

    def _fields(self, entry: _Entry, count: int) -> str:
        """Encode all but v, seq, time, prev and hash; by hand: twice as fast as ``json.dumps``."""
        op, path, decision, why, to, resolved, rule, errno, trash_id, layer, extra, tool, call_id = entry
        return (
            f'"run":"{self.run}","layer":{_quote(layer)},"op":{_quote(op)},"path":{_text(path, _PATH)},'
            f'"to":{_text(to, _PATH)},"resolved":{_text(resolved, _PATH)},"decision":{_quote(decision)},'
            f'"why":{_text(why, _WHY)},"rule":{"null" if rule is None else _rule_text(rule)},'
            f'"errno":{"null" if errno is None else int(errno)},'
            f"{self._who_head}{_text(tool, _NAME)},"
            f'"call_id":{_text(call_id, _NAME)}{self._who_tail},"trash_id":{_text(trash_id, _NAME)},'
            f'"count":{count},"extra":{"null" if extra is None else _dump(extra)}'
        )

    def _repair(self, why: str, extra: dict[str, Any]) -> str:
        entry = _Entry("repair", _LOG, "error", f"audit: {why}", layer="audit", extra=extra)
        return self._fields(entry, 1)

    def _failed(self, error: OSError) -> None:
        """Tell that a record was not written.

        EIO stands for every cause: a FileNotFoundError from here would look like an answer about the
        agent's file. No path either: the sentence can reach the agent.
        """
        sentence = f"the audit log cannot be written: {error.strerror or type(error).__name__}"
        self.problem = sentence
        if self._required:
            raise OSError(errnos.EIO, sentence) from None
        if not self._warned:
            self._warned = True
            import logging  # noqa: PLC0415 - imported when needed: start-up time

            logging.getLogger("fsjail").warning("%s (in %s); going on without", sentence, self.folder)

    def _read(self, since: str | None, denied: bool | None, actor: str | None) -> Iterator[Event]:
        with _Snapshot(self.folder) as snapshot:
            for name, fd, size in snapshot.files:
                if fd < 0:
                    raise OSError(errnos.EIO, f"{name} is not a readable regular file")
                for line in _lines(fd, size):
                    # Inside a JSON text a quote is escaped, so this cannot be faked by a file name.
                    if denied and b',"decision":"deny",' not in line:
                        continue
                    found = _parse(line)
                    if (
                        found is None
                        or (since is not None and found["time"] < since)
                        or (denied is not None and (found["decision"] == "deny") is not denied)
                        or (actor is not None and found["actor"].get("name") != actor)
                    ):
                        continue
                    yield Event(*[found[field] for field in _FIELDS])


_LIVE: weakref.WeakSet[AuditLog] = weakref.WeakSet()


@atexit.register
def _flush_all() -> None:
    for log in list(_LIVE):
        log._settle()  # noqa: SLF001 - the same module; not closed: a later exit handler may still write


def _forked() -> None:
    for log in list(_LIVE):
        log._fresh()  # noqa: SLF001 - the same module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class _Chain:
    """The files: appends under the lock, repairs, rotates."""

    def __init__(
        self, folder: str, max_bytes: int, keep: int, repair: Callable[[str, dict[str, Any]], str]
    ) -> None:
        self._path = folder
        self._max_bytes = max_bytes
        self._keep = keep
        self._repair = repair
        self._folder = self._lock = self._log = self._head = -1
        self._seen: tuple[int, int, int] | None = None  # device, inode, size after our own last write
        self._first, self._seq, self._size, self._hash = 1, 0, 0, _NONE
        self._second, self._stamp = -1, ""

    def forget(self) -> None:
        """Close all descriptors; the next append opens them again."""
        self._seen = None
        for name in ("_log", "_head", "_lock", "_folder"):
            self._close(name)

    def append(self, fields: str) -> tuple[int, str, str, str]:
        """Add a record; gives its seq, time, prev and hash."""
        self._acquire()
        try:
            self._sync()
            return self._add(fields)
        except BaseException:
            self._seen = None  # perhaps half done: read it anew next time
            raise
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

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
                self._folder = _open_folder(self._path)
                self._lock = _open(_LOCK, os.O_RDWR | os.O_CREAT, self._folder)
            _flock(self._lock, fcntl.LOCK_EX)
            if os.fstat(self._lock).st_nlink:
                return
            self.forget()  # the folder was removed meanwhile: a lock on a dead file excludes nobody
        _fail("the lock file keeps vanishing")

    def _sync(self) -> None:
        """Learn where the chain ends, if anybody else has written since."""
        try:
            st = os.stat(_LOG, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            self._seen = None
        else:
            if (st.st_dev, st.st_ino, st.st_size) == self._seen:
                return
        self._close("_head")
        self._head = _open(_HEAD, os.O_RDWR | os.O_CREAT, self._folder)
        head = _read_head(self._head)
        self._reopen()
        if head is not None and head.size == self._size and (head.size or not head.seq):
            # Another process of ours wrote last. If the bytes were changed in place, the chain
            # goes on from the true hash, and verify finds the record that does not fit.
            self._first, self._seq, _, self._hash = head
            return
        self._mend(head)

    def _reopen(self) -> None:
        self._close("_log")
        self._log = _open(_LOG, os.O_RDWR | os.O_APPEND | os.O_CREAT, self._folder)
        st = os.fstat(self._log)
        self._size = st.st_size
        self._id = (st.st_dev, st.st_ino)

    def _mend(self, head: _Head | None) -> None:
        """Find the end of the chain by reading, and repair what a kill or a hand has done to it."""
        last, torn, newline = _last(self._log, self._size)
        self._seq, self._hash = last or self._last_rotated()
        missing = False
        if head is None:
            self._first = self._oldest(_rotated(self._folder)) or self._seq + 1
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
            self._add(self._repair("torn record", facts))
        if missing:
            self._add(self._repair("records missing", {"head": self._seq}))
        elif head is None and self._seq:
            self._add(self._repair("head missing", {}))

    def _last_rotated(self) -> tuple[int, str]:
        """Find the last record of the newest rotated file that has one."""
        for number in sorted(_rotated(self._folder)):
            fd = _open(f"audit.{number}.jsonl", os.O_RDONLY, self._folder)
            try:
                last = _last(fd, os.fstat(fd).st_size)[0]
            finally:
                os.close(fd)
            if last is not None:
                return last
        return 0, _NONE

    def _oldest(self, numbers: list[int]) -> int | None:
        """Read the seq of the first record in the oldest of the given rotated files, or in the log."""
        fd = self._log
        if numbers:
            fd = _open(f"audit.{max(numbers)}.jsonl", os.O_RDONLY, self._folder)
        try:
            found = _FIRST.match(os.pread(fd, 64, 0))
        finally:
            if numbers:
                os.close(fd)
        return int(found[1]) if found else None

    def _add(self, fields: str) -> tuple[int, str, str, str]:
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
        os.pwrite(self._head, _Head(self._first, self._seq, self._size, self._hash).line(), 0)

    def _rotate(self) -> None:
        numbers = _rotated(self._folder)
        staying = sorted(n for n in numbers if n < self._keep)
        if len(staying) < len(numbers):
            # The head first: if we are killed in between, there is more than it promises, never less.
            self._first = self._oldest(staying) or self._first
            self._write_head()
            for number in numbers:
                if number >= self._keep:
                    os.unlink(f"audit.{number}.jsonl", dir_fd=self._folder)
        moves = [(f"audit.{n}.jsonl", f"audit.{n + 1}.jsonl") for n in reversed(staying)]
        for old, new in [*moves, (_LOG, "audit.1.jsonl")]:
            os.rename(old, new, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._reopen()


class _Snapshot:
    """Descriptors of all files of a log, with their sizes, as they were at one moment; oldest first."""

    def __init__(self, path: str) -> None:
        self.files: list[tuple[str, int, int]] = []
        self.head: _Head | None = None
        self._path = path

    def __enter__(self) -> Self:
        for _ in range(10):
            if self._take():
                break
            self.__exit__()
        return self

    def _take(self) -> bool:
        """Open all; False if a first writer came meanwhile, so that it was done without its lock."""
        try:
            folder = _open_folder(self._path)
        except FileNotFoundError:
            return True
        lock = -1
        try:
            with contextlib.suppress(FileNotFoundError):
                lock = _open(_LOCK, os.O_RDONLY, folder)
                _flock(lock, fcntl.LOCK_SH)  # no rotation meanwhile
            for number in sorted(_rotated(folder), reverse=True):
                self._add(f"audit.{number}.jsonl", folder)
            self._add(_LOG, folder)
            with contextlib.suppress(OSError):
                fd = _open(_HEAD, os.O_RDONLY, folder)
                try:
                    self.head = _read_head(fd)
                finally:
                    os.close(fd)
            return lock >= 0 or _LOCK not in os.listdir(folder)
        except BaseException:
            self.__exit__()
            raise
        finally:
            if lock >= 0:
                os.close(lock)
            os.close(folder)

    def _add(self, name: str, folder: int) -> None:
        try:
            fd = _open(name, os.O_RDONLY, folder)
        except FileNotFoundError:
            return
        except OSError:
            self.files.append((name, -1, 0))
            return
        self.files.append((name, fd, os.fstat(fd).st_size))

    def __exit__(self, *_: object) -> None:
        for _name, fd, _size in self.files:
            if fd >= 0:
                os.close(fd)
        self.files = []


class _Check:
    """One walk along the chain."""

    def __init__(self, snapshot: _Snapshot) -> None:
        self._files = snapshot.files
        self._head = snapshot.head
        self._problems: list[str] = []
        self._ok = True
        self._records = 0
        self._seq, self._hash = 0, _NONE
        self._bad: tuple[str, bytes] | None = None  # a line that is no record; a repair may explain it
        self._head_seen = False

    def run(self) -> Verification:
        for name, fd, size in self._files:
            if fd < 0:
                self._say(f"{name}: not a readable regular file")
                continue
            for number, line in enumerate(_lines(fd, size), start=1):
                self._look(f"{name}, line {number}", line)
        self._settle(None)
        head = self._head
        if head is None:
            if self._records:
                self._say("head: missing or damaged, so a cut of the tail would not show")
        elif head.seq > self._seq:
            name = self._files[-1][0] if self._files else _LOG
            self._say(f"{name}: seq {self._seq + 1} to {head.seq} are missing at the end (cut)")
        elif head.seq and not self._head_seen:
            self._say(f"head: the record with seq {head.seq} and its hash is not in the log")
        return Verification(ok=self._ok, records=self._records, problems=tuple(self._problems))

    def _say(self, problem: str, *, broken: bool = True) -> None:
        self._ok = self._ok and not broken
        if len(self._problems) < _PROBLEMS:
            self._problems.append(problem)

    def _settle(self, record: dict[str, Any] | None) -> None:
        """Judge the line before that was no record: torn and repaired, or damaged."""
        if self._bad is None:
            return
        (where, line), self._bad = self._bad, None
        facts = (record["extra"] or {}) if record and record["op"] == "repair" else {}
        known = {"bytes": len(line), "sha256": hashlib.sha256(line).hexdigest()}
        if record and all(facts.get(key) == value for key, value in known.items()):
            self._say(
                f"{where}: a torn record of {len(line)} bytes, repaired by seq {record['seq']}", broken=False
            )
        else:
            self._say(f"{where}: not a record (torn or damaged), after seq {self._seq}")

    def _look(self, where: str, line: bytes) -> None:
        record = _parse(line)
        self._settle(record)
        if record is None:
            self._bad = (where, line)
            return
        self._records += 1
        seq, digest, prev = record["seq"], record["hash"], record["prev"]
        where = f"{where}, seq {seq}"
        if not _fits(line, prev):
            self._say(f"{where}: edited: its hash does not fit its bytes")
        self._follow(where, seq, prev)
        if self._head is not None and seq == self._head.seq:
            self._head_seen = self._head_seen or digest == self._head.hash
        if record["layer"] == "audit" and record["op"] == "repair":
            if record["why"] == "audit: head missing":
                self._say(f"{where}: the head was missing here: what came before may have been cut")
            elif record["why"] == "audit: records lost":
                lost = (record["extra"] or {}).get("lost")
                self._say(f"{where}: {lost} records before it could not be written", broken=False)
        self._seq, self._hash = seq, digest

    def _follow(self, where: str, seq: int, prev: str) -> None:
        """Compare with the record before."""
        if self._records == 1:  # rotation may have dropped what came before, and told the head
            if self._head is not None and seq > self._head.first:
                self._say(f"{where}: seq {self._head.first} to {seq - 1} are missing before it")
            elif seq == 1 and prev != _NONE:
                self._say(f"{where}: does not begin the chain")
        elif seq > self._seq + 1:
            self._say(f"{where}: seq {self._seq + 1} to {seq - 1} are missing before it (dropped or swapped)")
        elif seq <= self._seq:
            self._say(f"{where}: out of order: it follows seq {self._seq} (swapped or put in)")
        elif prev != self._hash:
            self._say(f"{where}: does not follow the record before it, which was replaced")


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


def _open_folder(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | _SAFELY)


def _open(name: str, flags: int, folder: int) -> int:
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
            _fail(f"{name} is not a regular file")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _fail(reason: str) -> NoReturn:
    raise OSError(errnos.EIO, reason)


def _flock(fd: int, how: int) -> None:
    """Take the lock, waiting for a while only."""
    until, delay = None, 0.00005
    while True:
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
        except BlockingIOError:
            now = time.monotonic()
            until = until or now + _LOCK_SECONDS
            if now > until:
                raise OSError(errnos.ETIMEDOUT, "another process does not give up the lock") from None
            time.sleep(delay)
            delay = min(delay * 1.5, 0.005)
        else:
            return


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


def _rotated(folder: int) -> list[int]:
    return [int(found[1]) for name in os.listdir(folder) if (found := _ROTATED.match(name))]


def _read_head(fd: int) -> _Head | None:
    try:
        found = json.loads(os.pread(fd, 512, 0))
        head = _Head(int(found["first"]), int(found["seq"]), int(found["size"]), str(found["hash"]))
    except (ValueError, TypeError, KeyError):
        return None
    return head if len(head.hash) == len(_NONE) else None


def _lines(fd: int, size: int) -> Iterator[bytes]:
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


def _parse(line: bytes) -> dict[str, Any] | None:
    """Decode a line; None if it is no record."""
    if not _SEAL.search(line):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if (
        not isinstance(found, dict)
        or not found.keys() >= _KEYS
        or type(found["seq"]) is not int
        or not isinstance(found["prev"], str)
        or not isinstance(found["time"], str)
        or not isinstance(found["actor"], dict)
        or not isinstance(found["extra"], dict | None)
    ):
        return None
    return found


def _fits(line: bytes, prev: str) -> bool:
    """Tell whether the hash at the end of a line is that of its bytes."""
    seal = _SEAL.search(line)
    if seal is None:
        return False
    digest = hashlib.sha256(prev.encode("utf-8", "replace") + line[: seal.start()] + b"}")
    return digest.hexdigest().encode("ascii") == seal[1]


_KEYS = frozenset(_FIELDS)


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
            found = _parse(lines[index])
            if found is not None and _fits(lines[index], found["prev"]):
                return (found["seq"], found["hash"]), torn, newline
            torn = torn or lines[index]
        if start == 0:
            return None, torn, newline
        step *= 4


def _utc(since: datetime | str | float) -> str:
    """Spell a moment as records do, so that texts compare."""
    from datetime import UTC, datetime  # noqa: PLC0415 - imported when needed: start-up time

    if isinstance(since, str):
        since = datetime.fromisoformat(since)
    elif not isinstance(since, datetime):
        since = datetime.fromtimestamp(since, UTC)
    return since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _cut(text: str | None, limit: int) -> str | None:
    return text if text is None or len(text) <= limit else text[:limit]


def _text(text: str | None, limit: int) -> str:
    """Encode a text for JSON; ASCII only, so that the bytes of odd names survive as lone surrogates."""
    if text is None:
        return "null"
    return str(_quote(text if len(text) <= limit else text[:limit]))


_dump = json.JSONEncoder(separators=(",", ":"), default=str).encode


def _rule(rule: _Rule | None) -> dict[str, Any] | None:
    if rule is None:
        return None
    return {"pattern": _cut(rule.pattern, _PATH), "source": _cut(rule.source, _PATH), "line": rule.line}


def _rule_text(rule: _Rule) -> str:
    line = "null" if rule.line is None else int(rule.line)
    return f'{{"pattern":{_text(rule.pattern, _PATH)},"source":{_text(rule.source, _PATH)},"line":{line}}}'


_GONE = "[redacted]"
_TELLING = (
    r"[\w.-]*(?:token|passw(?:or)?d|passphrase|passwd|pwd|secret|api[-_]?key|access[-_]?key|private[-_]?key"
    r"|credential|auth(?!or))[\w.-]*"
)
_SECRET_FLAG = re.compile(rf"-{{0,2}}{_TELLING}\Z", re.IGNORECASE)
_SECRET_VALUE = re.compile(rf"(?<![\w.-])(-{{0,2}}{_TELLING}(?:=|:(?!:))\s*).*", re.IGNORECASE | re.DOTALL)
_SECRET_TOKEN = re.compile(
    r"\b(?:sk-[\w-]{6,}|gh[a-z]_\w{6,}|github_pat_\w+|glpat-[\w-]+|xox[a-z]-[\w-]+|AKIA\w{12,}|eyJ[\w.-]{10,})"
    r"|(?<=bearer )\S+",
    re.IGNORECASE,
)
_SECRET_URL = re.compile(r"(?<=://)[^/\s]*:[^/\s]*@")
_LONG = re.compile(r"[A-Za-z0-9+/_-]{32,}={0,2}")
_SEGMENT = re.compile(r"[A-Za-z0-9+_-]{32,}={0,2}")


def _looks_random(found: re.Match[str]) -> str:
    text = found[0]
    mixed = all(any(kind(c) for c in text) for kind in (str.isdigit, str.isupper, str.islower))
    return _GONE if mixed or re.fullmatch(r"[0-9a-fA-F]+", text) else text


def _argv() -> list[str]:
    """Give this process's command line without secrets."""
    shown: list[str] = []
    hide = False
    for item in [str(item)[:_PATH] for item in getattr(sys, "argv", [])[:_ARGV]]:
        if hide and not item.startswith("--"):
            shown.append(_GONE)
            hide = False
            continue
        if shown and shown[-1] in ("-u", "--user") and ":" in item:
            shown.append(_GONE)
            continue
        hide = item.startswith("-") and bool(_SECRET_FLAG.match(item))
        text = _SECRET_URL.sub(f"{_GONE}@", item)
        text = _SECRET_VALUE.sub(rf"\1{_GONE}", text)
        text = _SECRET_TOKEN.sub(_GONE, text)
        is_path = text.startswith(("/", "./", "../", "~"))
        text = (_SEGMENT if is_path else _LONG).sub(_looks_random, text)
        shown.append(text[:_NAME])
    return shown
