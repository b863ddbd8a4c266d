"""Guard: sees the raw file calls of this Python process, and logs or refuses them by the jail's policy.

One hook (``sys.addaudithook``) is installed by the first guard and stays; with no guard at work it returns at
its first line. An open takes about 0.4 µs longer then, of which CPython itself takes 0.3 for a hook that does
nothing, in C; where there never was a guard it takes no longer. `fsjail._hooked` says what an event asks for,
`fsjail._scope` for whom a guard holds, `fsjail._callers` whose call it is, `fsjail._kernelname` where a name
leads.
"""

from __future__ import annotations

import errno
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from fsjail import _callers, _scope
from fsjail._hooked import ASKS, UNCLEAR, Ask
from fsjail._rawcalls import FAILED, Onlooker, refusal

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from types import FrameType, TracebackType

    from fsjail._jail import Jail

    StrPath = str | os.PathLike[str]


class Guard:
    """Sees what code of this process does with files without going through the jail.

    A context manager; made by ``Jail.guard``. Each raw call (``open``, ``os.*``, ``shutil``, ``glob``,
    ``pathlib``, ``tempfile``, ``sqlite3``, sockets that are files) is judged by the jail's policy, under the
    name that was given and the one that it leads to. Inside the root an allowed read passes unseen, and an
    allowed change is recorded with the layer ``guard`` (it cannot be undone: it went around the trash). What
    the policy denies, what lies outside, a new process, and native code (``ctypes``, an extension module that
    does not belong to the interpreter) are recorded as denied; with "block" they are refused with the errors
    of the jail. fsjail's own calls are left alone. Only the making of another jail is not: its rules would be
    its own; and the ``fsjail`` command is a program like any other.

    Quiet outside: what the import system reads and caches of the folders that were on ``sys.path`` when the
    block began, source lines for tracebacks there, any reading in the folders of the interpreter (standard
    library, site-packages, time zones), ``/dev/null`` and its kind, and a few texts of the system.

    It holds for the ``with`` block, for the tasks and threads started there (``threading``, executors,
    ``asyncio.to_thread``), and ends for all of them with the block. A thread that an executor keeps holds it
    for all its work until then. Several guards can be nested; each judges every call.

    Args:
        jail: whose policy and log.
        mode: "log" records and lets go on; "block" refuses too.
        allow_outside: paths outside the root that may be read and changed, with all beneath; "~" is known.

    Raises:
        ValueError: an unknown mode, an empty path; on entering, a closed jail.
        TypeError: one path instead of a list of paths.
        RuntimeError: on entering, another hook keeps ours out; on leaving, it was left already.

    Does not stop: it is an alarm in the same process, no wall; a container or another user is one.

    - What raises no audit event: stat, access, exists, readlink, mkfifo, mknod, shared memory; what C code
      opens by itself (extension modules, dbm.gnu, readline, ssl's certificates, sqlite's journals); io_uring.
      A raw listing of a folder that may be listed shows hidden names, too.
    - What is held already: open descriptors and mappings; C functions that somebody has looked up before,
      such as the system calls that fsjail uses; on Python 3.11, ``_thread.start_new_thread`` taken out of its
      module before the block. An ``os.open`` taken out before is refused a relative name, because nothing
      tells its ``dir_fd``; a ``sqlite3.connect`` taken out before, and ``sqlite3.Connection`` itself, do not
      ask before they attach another database.
    - What runs elsewhere or later: child processes (their start is refused), interpreters beside this one,
      threads and executors that were there before, a thread or task with an empty context of its own;
      ``atexit``, finalizers and tasks that are left over when the block ends.
    - Code that changes fsjail or the parts of the standard library that it relies on, that sets its own
      sqlite authorizer, that calls fsjail's private functions, or that can write the interpreter's folders.
    - Races: a name is judged before it is used, and can lead elsewhere a moment later.
    """

    def __init__(
        self, jail: Jail, mode: Literal["log", "block"] = "log", *, allow_outside: Iterable[StrPath] = ()
    ) -> None:
        if mode not in {"log", "block"}:
            raise ValueError(f"mode is 'log' or 'block', not {mode!r}")
        if isinstance(allow_outside, str | bytes) or hasattr(allow_outside, "__fspath__"):
            raise TypeError(f"allow_outside is a list of paths, not the one path {allow_outside!r}")
        self.jail = jail
        self.mode = mode
        self.onlooker = Onlooker(jail, allow_outside)
        self._entries: list[_scope.Entry] = []

    def __enter__(self) -> Self:
        """Begin; the same guard can be entered again inside of itself."""
        if self.jail._root.fd < 0:  # noqa: SLF001 - a guard is a part of the jail, in a module of its own
            raise ValueError("the jail is closed")
        _callers.prepare()
        self.onlooker.begin()
        entry = _scope.enter(self, sys._getframe(1))  # noqa: SLF001 - CPython's own way
        try:
            _install()
        except BaseException:
            _scope.leave(entry)
            raise
        self._entries.append(entry)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End, in every context, in whatever order nested guards are left."""
        if not self._entries:
            raise RuntimeError("this guard is not at work")
        _scope.leave(self._entries.pop())

    def __repr__(self) -> str:
        """Show whose guard it is; for the owner, as the jail's own."""
        return f"{type(self).__name__}({self.jail!r}, {self.mode!r})"


# ── the hook ───────────────────────────────────────────────────────────────────────────────────

_frame = sys._getframe  # noqa: SLF001 - CPython's own way; held, so that replacing it changes nothing here
_PROBE: Final = "fsjail.guard.probe"


def _install() -> None:
    """Install the hook, once, and see it work: a hook that was there before can keep ours out in silence."""
    for adding in (True, False):
        seen: list[str] = []
        sys.audit(_PROBE, seen)
        if seen:
            return
        if adding:
            sys.addaudithook(_hook)
    raise RuntimeError("another audit hook of this process keeps the guard's out")


def _hook(event: str, args: tuple[Any, ...], _entries: list[_scope.Entry] = _scope.ENTRIES) -> None:
    """Be called by the interpreter before each audited call; an exception from here refuses the call."""
    if not _entries:
        return
    asks = ASKS.get(event)
    if asks is None:
        if event == _PROBE:
            args[0].append(event)
        return
    try:
        raised: FrameType | None = _frame(1)
    except ValueError:  # C code without Python code, such as a thread's function
        raised = None
    frame = _scope.caller(raised)
    entries = _scope.current(frame)
    if not entries:
        return
    try:
        if _callers.own(frame, event) or (raised is not frame and event.startswith("_thread.")):
            return
        refused = _judge(event, asks(args, raised), entries, frame)
    except Exception as error:  # noqa: BLE001 - whatever went wrong in here, "block" must not let it pass
        refused = _failed(event, error, [entry.guard for entry in entries])
    if refused is not None:
        raise refused


def _judge(
    event: str, asks: Iterable[Ask], entries: list[_scope.Entry], frame: FrameType | None
) -> Exception | None:
    """Ask every guard; record what there is to record; give the error of the first that refuses."""
    answers = [
        (entry.guard, answer)
        for ask in asks
        for entry in entries
        if (answer := entry.guard.onlooker.answer(ask, frame)) is not None
    ]
    refused = next(
        (answer for guard, answer in answers if not answer.decision and guard.mode == "block"), None
    )
    told: set[Guard] = set()  # one event is one change, whatever it asked for
    for guard, answer in answers:
        if answer.decision:
            if answer.quiet or refused is not None or guard in told:
                continue
            told.add(guard)
        try:
            guard.onlooker.record(answer, event)
        except (OSError, ValueError) as error:  # a required log cannot be written; it is closed
            if guard.mode == "block" and refused is None:
                return error
    return None if refused is None else refusal(refused.decision, refused.spelled)


def _failed(event: str, error: Exception, guards: list[Guard]) -> Exception | None:
    """Refuse what could not be judged where a guard blocks; a guard that logs never stops the program."""
    why = UNCLEAR if isinstance(error, TypeError) else FAILED
    for guard in guards:
        with suppress(Exception):
            guard.jail.record(
                "run",
                event,
                decision="deny",
                why=why,
                errno=errno.EACCES,
                layer="guard",
                extra={"event": event},
            )
    for guard in guards:
        if guard.mode == "block":
            return refusal(guard.onlooker.no("run", event, why), event)
    return None
