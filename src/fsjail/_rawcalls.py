"""The answer to a raw call: by the jail's policy in the root, by a short list outside.

Judged are the name that was given and the name that it leads to; both must be allowed.

Does not stop: a race between the answer and the call.
"""

from __future__ import annotations

import errno
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fsjail import _callers
from fsjail._decision import OF_GUARD, Decision, show
from fsjail._errors import AccessDenied, PolicyDenied
from fsjail._hooked import LOAD, UNCLEAR, Ask, exact
from fsjail._kernelname import is_folder, of_fd, of_path
from fsjail._names import lexical, split
from fsjail._redact import argv

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

    from fsjail._jail import Jail

    StrPath = str | os.PathLike[str]

_READS: Final = {"read", "list"}
_OUTSIDE: Final = "jail: outside"
FAILED: Final = "guard: failed"
# What belongs to every program: a sink, zeros, random bytes; the zone, types and certificates of the system.
_DEVICES: Final = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}
_SYSTEM: Final = {
    *("/etc/localtime", "/etc/timezone", "/etc/os-release", "/usr/lib/os-release", "/etc/mime.types"),
    *("/etc/ssl/cert.pem", "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"),
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/self/stat", "/proc/self/statm", "/proc/self/status"),
}
_CODE: Final = (".py", ".pyc", ".so", ".zip", ".egg", ".whl")
_GONE: Final = {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP}  # the call itself will say the same


class Answer(NamedTuple):
    """What is said to one ask: whether it may go on, and what the log gets."""

    ask: Ask
    decision: Decision
    spelled: str
    to: str | None = None
    quiet: bool = False


class Onlooker:
    """Answers raw calls for one guard.

    Args:
        jail: whose policy and log.
        allow_outside: paths outside the root that may be read and changed.
    """

    def __init__(self, jail: Jail, allow_outside: Iterable[StrPath]) -> None:
        self.jail = jail
        self._allowed = tuple(name for path in allow_outside for name in _both(path))
        self._imports: tuple[str, ...] = ()

    def begin(self) -> None:
        """Take down from where modules come at this moment."""
        self._imports = _import_folders()

    def answer(self, ask: Ask, frame: FrameType | None) -> Answer | None:
        """Answer one ask; None if there is nothing to say to it."""
        spelled = _spelled(ask.path)
        if ask.why:
            words = argv(list(map(_spelled, ask.argv)))
            if ask.argv and words:
                spelled = words[0]
            return Answer(ask, self.no(ask.op, spelled, ask.why), spelled)
        to = None if ask.to is None else _spelled(ask.to)
        try:
            name = _absolute(ask.path, ask.at)
            goal = None if ask.to is None else _absolute(ask.to, ask.to_at)
            if name is None or (ask.to is not None and goal is None):
                return None
            decision, quiet = self._judged(ask, name, goal, frame)
        except (OSError, TypeError):
            decision, quiet = self.no(ask.op, spelled, UNCLEAR), False
        return Answer(ask, replace(decision, path=spelled), spelled, to, quiet)

    def _judged(
        self, ask: Ask, name: str, goal: str | None, frame: FrameType | None
    ) -> tuple[Decision, bool]:
        op = ask.op
        if goal is not None:
            if os.path.dirname(name) == os.path.dirname(goal) and self._is_imports(op, name, frame):
                return self._yes(op, name), True
            return self._moved(name, goal)
        if op == "load":
            return self._loaded(name), True
        if op in _READS and is_folder(name):
            op = "list"
        if self._is_imports(op, name, frame):
            return self._yes(op, name), True
        return self._one(op, name, follow=ask.follow)

    def _one(self, op: str, name: str, *, follow: bool) -> tuple[Decision, bool]:
        """Judge one name, absolute and as the caller spelled the rest; and whether it is worth a record."""
        jail = self.jail
        below = jail._root._below(split(name))  # noqa: SLF001
        if below is not None:
            decision = self._ruled(op, name)
            if decision.resolved is not None or (not decision and decision.why != _OUTSIDE):
                return decision, op in _READS
        place = _reached(name, follow=follow)
        if place is None:  # a pipe or another thing without a name: it is open already
            return self._yes(op, name), True
        if self._inside(place):
            return self._ruled(op, place), op in _READS
        spelled = _normal(name)
        if below is not None and (inner := lexical((), below)[0]) is not None:
            # A link of the root that leads out, maybe to something allowed: its own name must be, too.
            decision = jail.policy.decision(op, name, jail.policy.judge_op(op, inner, None))
            if not decision:
                return decision, False
            spelled = place
        return self._beyond(op, spelled, place), True

    def _ruled(self, op: str, name: str, to: str | None = None) -> Decision:
        """The jail's own answer for a name below its root."""
        decision = self.jail.check(op, name, to)
        real = self.jail.root
        if not os.path.samestat(os.stat(real), os.fstat(self.jail._root.fd)):  # noqa: SLF001
            raise FileNotFoundError(errno.ENOENT, "the root was moved or replaced")
        return decision

    def _inside(self, place: str) -> bool:
        return self.jail._root._below(split(place)) is not None  # noqa: SLF001

    def _moved(self, name: str, goal: str) -> tuple[Decision, bool]:
        """Judge both ends of a move, and all beneath, where they are inside."""
        ends = [end if self._inside(end) else _reached(end, follow=False) or end for end in (name, goal)]
        if all(map(self._inside, ends)):
            decision = self._ruled("move", *ends)
            if decision or decision.why != _OUTSIDE:
                return decision, False
        source, quiet = self._one("move", name, follow=False)
        target, still = self._one("write", goal, follow=False)
        return replace(target if source else source, op="move"), quiet and still

    def _beyond(self, op: str, spelled: str, place: str) -> Decision:
        """Judge what is not in the root, by its own name, and by the given one where that is the stricter."""
        if self._is_log(place):
            return self.no(op, place, "builtin")
        if _under(place, self._allowed) or place in _DEVICES:
            return self._yes(op, place)
        # A library's folder may hold links to where its files are kept; nobody can plant one there.
        if op in _READS and (_under(spelled, _callers.PLACES) or spelled in _SYSTEM):
            return self._yes(op, place)
        if op == "list" and spelled in self._imports:
            return self._yes(op, place)
        return self.no(op, place, _OUTSIDE)

    def _is_log(self, place: str) -> bool:
        """Whether a name outside is the log's, or in a trash that lies elsewhere: nothing opens these."""
        folder = self.jail.audit.folder
        if _under(place, (folder, os.path.realpath(folder))):
            return True
        own = self.jail._store.inodes  # noqa: SLF001
        while own and place != "/":
            try:
                st = os.stat(place)
            except OSError:
                pass
            else:
                if (st.st_dev, st.st_ino) in own:
                    return True
            place = os.path.dirname(place)
        return False

    def _is_imports(self, op: str, name: str, frame: FrameType | None) -> bool:
        """Whether a call is the import system's own, on what it may read and cache."""
        read = op == "list" or (op == "read" and name.endswith(_CODE))
        if not read and "/__pycache__" not in name:
            return False
        if not (_callers.importing(frame, writes=not read) or (op == "read" and _callers.tracing(frame))):
            return False
        below = self._inside(name)
        if not read:
            return below or _under(name, (*self._imports, *_callers.PLACES))
        return _under(name, _callers.PLACES if below else (*self._imports, *_callers.PLACES))

    def _loaded(self, name: str) -> Decision:
        """Judge an extension module: the interpreter's, the host's, or one that nobody here can have made."""
        place = _reached(name, follow=True) or name
        if _under(name, (*_callers.PLACES, *self._allowed)):
            return self._yes("load", name)
        if self._inside(place):
            if self.jail.check("read", place) and not self.jail.check("write", place):
                return self._yes("load", place)
        elif _under(place, self._imports):
            return self._yes("load", name)
        return self.no("load", name, LOAD)

    def _yes(self, op: str, name: str) -> Decision:
        return Decision(allowed=True, op=op, path=name, resolved=name, why="guard: quiet", rule=None)

    def no(self, op: str, name: str, why: str) -> Decision:
        return Decision(allowed=False, op=op, path=name, resolved=name, why=why, rule=None)

    def record(self, answer: Answer, event: str) -> None:
        ask, decision = answer.ask, answer.decision
        extra: dict[str, Any] = {"event": event}
        if ask.argv:
            extra["argv"] = argv(list(map(_spelled, ask.argv)))
        self.jail.record(
            decision.op,
            answer.spelled,
            to=answer.to,
            decision="allow" if decision else "deny",
            why=decision.why,
            rule=decision.rule,
            resolved=None if decision.resolved is None else self._below_root(decision.resolved),
            errno=None if decision else (errno.EXDEV if decision.why.startswith("jail:") else errno.EACCES),
            layer="guard",
            extra=extra,
        )

    def _below_root(self, name: str) -> str:
        parts = self.jail._root._below(split(name)) if name.startswith("/") else None  # noqa: SLF001
        return name if parts is None else "/".join(parts) or "."


def refusal(decision: Decision, spelled: str) -> AccessDenied:
    """The error of the jail, with the sentence of the guard where no rule has decided."""
    sentence = OF_GUARD.get(decision.why)
    if sentence is None:
        return AccessDenied.of(decision, spelled)
    text = f"{decision.op} {show(spelled)} is denied: {sentence} ({decision.why})."
    error = PolicyDenied(errno.EACCES, text, spelled)
    error.decision = decision
    return error


def _spelled(value: object) -> str:
    """Give a path as text, as the caller spelled it, without running code of the caller's."""
    try:
        value = exact(value)
    except TypeError:
        return f"<{type(value).__name__}>"
    if value is None:
        return "."
    if isinstance(value, int):
        return f"fd {value}"
    return os.fsdecode(value)


def _absolute(path: object, at: int | None) -> str | None:
    """Give an absolute name, with its ".." and links as they are; None for what has no name.

    Raises:
        OSError: the folder that it is relative to cannot be told.
        TypeError: it is no path.
    """
    value = exact(path)
    if isinstance(value, int):
        return of_fd(value)
    name = "." if value is None else os.fsdecode(value)
    if not name or "\0" in name:  # the call itself will say so
        return None
    if name.startswith("/"):
        return name
    if at is None:
        raise OSError(errno.EBADF, "the folder is not told")
    folder = os.getcwd() if at == -1 or at == getattr(os, "AT_FDCWD", -100) else of_fd(at)
    if folder is None:
        raise OSError(errno.ENOENT, "the folder has no name any more")
    return f"{folder.rstrip('/')}/{name}"


def _normal(name: str) -> str:
    """Give an absolute name without "." and ".."; two slashes at its beginning are one to the kernel."""
    return f"/{os.path.normpath(name).lstrip('/')}"


def _reached(name: str, *, follow: bool) -> str | None:
    """Where a name leads; by its text alone where nothing is there, or out of reach, also for the call."""
    try:
        return of_path(name, follow=follow)
    except OSError as error:
        if error.errno not in _GONE:
            raise
        return _normal(name)


def _both(path: StrPath) -> tuple[str, str]:
    """A path in both spellings, with a slash at its end."""
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(f"a path is a str or PathLike[str], not {type(text).__name__}")
    if not text:
        raise ValueError("an empty path in allow_outside")
    name = os.path.abspath(os.path.expanduser(text))
    return name, os.path.realpath(name)


def _under(name: str, folders: Iterable[str]) -> bool:
    """Whether a normal name is one of these or beneath one."""
    return any(name == each.rstrip("/") or name.startswith(f"{each.rstrip('/')}/") for each in folders)


def _import_folders() -> tuple[str, ...]:
    """Where modules come from now: what is on sys.path, and the folders of packages found elsewhere."""
    entries: list[Any] = list(sys.path)  # anything can be in there; what is no text counts for nothing
    found = [os.path.abspath(entry or ".") for entry in entries if isinstance(entry, str)]
    for module in list(sys.modules.values()):
        places = getattr(module, "__dict__", {}).get("__path__")
        if isinstance(places, list):
            found += [place for place in places if isinstance(place, str) and os.path.isabs(place)]
    kept = [place for place in dict.fromkeys(found) if not _under(place, _callers.PLACES)]
    return tuple(dict.fromkeys([*kept, *map(os.path.realpath, kept)]))
