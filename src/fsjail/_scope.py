"""Where a guard holds, and the functions that are replaced while one does.

A guard holds in the context of its ``with`` block, in the tasks and threads that are started from there, and
in whatever runs beneath the block on the stack: so an empty context (``contextvars.Context().run``) is no way
out. It ends for all of them when the block ends.
"""

from __future__ import annotations

import _thread
import os
import posix
import sys
import threading
from contextvars import ContextVar
from operator import index
from typing import TYPE_CHECKING, Any, Final

from fsjail import _callers

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from fsjail.guard import Guard

ATTACH: Final = "fsjail.sqlite.attach"
FORK_EXEC: Final = "fsjail.fork_exec"
_SQLITE_ATTACH: Final = 24
_SQLITE_OK, _SQLITE_DENY = 0, 1


class Entry:
    """One guard in one ``with`` block.

    Attributes:
        guard: whose.
        thread: where the block was entered.
        frame: what entered it; let go of at its end.
        live: whether the block goes on.
    """

    __slots__ = ("frame", "guard", "live", "thread")

    def __init__(self, guard: Guard, frame: FrameType | None) -> None:
        self.guard = guard
        self.thread = threading.get_ident()
        self.frame = frame
        self.live = True


ENTRIES: list[Entry] = []  # of all threads; empty means that there is nothing to do
ACTIVE: ContextVar[tuple[Entry, ...]] = ContextVar("fsjail_guards", default=())
_LOCK = threading.RLock()


def enter(guard: Guard, frame: FrameType | None) -> Entry:
    """Let a guard hold from here on."""
    while frame is not None and frame.f_globals.get("__name__") == "contextlib":  # ExitStack.enter_context
        frame = frame.f_back
    entry = Entry(guard, frame)
    with _LOCK:
        if not ENTRIES:
            _replace()
        ENTRIES.append(entry)
    ACTIVE.set((*[each for each in ACTIVE.get() if each.live], entry))
    return entry


def leave(entry: Entry) -> None:
    """Let it end, in every context."""
    entry.live, entry.frame = False, None
    with _LOCK:
        ENTRIES.remove(entry)
        if not ENTRIES:
            _restore()
    ACTIVE.set(tuple(each for each in ACTIVE.get() if each.live))


def current(frame: FrameType | None) -> list[Entry]:
    """Which guards hold for the code that a frame runs, the outermost first."""
    held = [entry for entry in ACTIVE.get() if entry.live]
    here = threading.get_ident()
    missing = [entry for entry in ENTRIES if entry.thread == here and entry not in held]
    while missing and frame is not None:
        held += [entry for entry in missing if entry.frame is frame]
        missing = [entry for entry in missing if entry not in held]
        frame = frame.f_back
    return held


def caller(frame: FrameType | None) -> FrameType | None:
    """The frame that called, where one of the wrappers below stands between."""
    while frame is not None and id(frame.f_code) in _callers.CLEAR:
        frame = frame.f_back
    return frame


def dir_fd_of(frame: FrameType | None) -> int | None:
    """The ``dir_fd`` of an ``os.open``, from the frame that raised its event; -1: none, None: unknown."""
    if frame is None or frame.f_code is not open_at.__code__ or frame.f_globals is not globals():
        return None
    at = frame.f_locals["dir_fd"]
    return -1 if at is None else at


# ── what is replaced ───────────────────────────────────────────────────────────────────────────

_os_open = os.open
_fork_exec: Any = None
_connect: Any = None


def open_at(path: Any, flags: int, mode: int = 0o777, *, dir_fd: Any = None) -> int:
    """Stand in for os.open, whose event does not tell the folder that a name is relative to."""
    if dir_fd is not None:
        dir_fd = index(dir_fd)
    return _os_open(path, flags, mode, dir_fd=dir_fd)


class _Carried:
    """A thread's function, with the guards of who started the thread."""

    __slots__ = ("_entries", "_function")

    def __init__(self, entries: tuple[Entry, ...], function: Callable[..., object]) -> None:
        self._entries = entries
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> object:
        ACTIVE.set(self._entries)
        return self._function(*args, **kwargs)


def _starter(real: Callable[..., Any]) -> Callable[..., Any]:
    def start(function: Callable[..., object], *args: Any, **kwargs: Any) -> Any:
        if ENTRIES:
            frame = sys._getframe(1)  # noqa: SLF001 - CPython's own way
            entries = current(frame)
            # fsjail's own threads (watch) walk the root themselves.
            if entries and not _callers.own(frame, "start_new_thread"):
                function = _Carried(tuple(entries), function)
        return real(function, *args, **kwargs)

    _callers.CLEAR[id(start.__code__)] = start.__code__
    return start


def fork_exec(*args: Any) -> Any:
    """Stand in for the one way to start a process that raises no event (multiprocessing uses it)."""
    sys.audit(FORK_EXEC, args[0])
    return _fork_exec(*args)


def connect(database: Any, *args: Any, **kwargs: Any) -> Any:
    """Stand in for sqlite3.connect, so that a connection asks before it attaches another file."""
    if isinstance(database, os.PathLike):
        database = os.fspath(database)  # once: what is judged is what is opened
    connection = _connect(database, *args, **kwargs)
    if current(sys._getframe(1)):  # noqa: SLF001 - CPython's own way
        import sqlite3  # noqa: PLC0415 - loaded long ago, or there would be no connection

        sqlite3.Connection.set_authorizer(connection, on_statement)
    return connection


def on_statement(action: int, name: str | None, *_more: Any) -> int:
    """Answer sqlite, which asks before each step of a statement: attached databases are files too."""
    if action == _SQLITE_ATTACH and ENTRIES:
        try:
            sys.audit(ATTACH, name)
        except Exception:  # noqa: BLE001 - sqlite knows one answer for any reason
            return _SQLITE_DENY
    return _SQLITE_OK


_callers.CLEAR.update(
    (id(each.__code__), each.__code__)
    for each in (open_at, fork_exec, connect, on_statement, _Carried.__call__)
)
_put: list[tuple[Any, str, Any, Any]] = []


def _replace() -> None:
    """Put the wrappers in their places."""
    import _posixsubprocess  # noqa: PLC0415 - not on every system

    global _fork_exec, _connect  # noqa: PLW0603 - the process has one
    _fork_exec = _posixsubprocess.fork_exec
    wanted: list[tuple[Any, str, Any]] = [
        (os, "open", open_at),
        (posix, "open", open_at),
        (_posixsubprocess, "fork_exec", fork_exec),
    ]
    if "subprocess" in sys.modules:  # it has taken the function out of its module
        wanted.append((sys.modules["subprocess"], "_fork_exec", fork_exec))
    try:
        import sqlite3  # noqa: PLC0415 - not in every Python
    except ImportError:
        pass
    else:
        _connect = sqlite3.connect
        wanted += [(module, "connect", connect) for module in (sqlite3, sqlite3.dbapi2)]
    for module, names in (
        (_thread, ("start_new_thread", "start_new", "start_joinable_thread")),
        (threading, ("_start_new_thread", "_start_joinable_thread")),
    ):
        wanted += [(module, name, _starter(getattr(module, name))) for name in names if hasattr(module, name)]
    for module, name, wrapper in wanted:
        _put.append((module, name, getattr(module, name), wrapper))
        setattr(module, name, wrapper)
    # shutil, pathlib and others look here, when they are imported, whether they can work on descriptors.
    os.supports_dir_fd.add(open_at)


def _restore() -> None:
    """Take the wrappers away again, unless somebody has put something of his own over them."""
    while _put:
        module, name, real, wrapper = _put.pop()
        if getattr(module, name) is wrapper:
            setattr(module, name, real)
    os.supports_dir_fd.discard(open_at)


open_at.__name__ = open_at.__qualname__ = "open"
connect.__name__ = connect.__qualname__ = "connect"
fork_exec.__name__ = fork_exec.__qualname__ = "fork_exec"
