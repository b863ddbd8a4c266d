"""The facade: the only place that says resolve → decide → act → record, in ``Jail._mediate``."""

from __future__ import annotations

import errno
import os
import stat as stat_
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from fsjail._audit import AuditLog, Event
from fsjail._changes import Changes, into_itself
from fsjail._dirs import state_folder
from fsjail._errors import AccessDenied, InvalidName, Moved, TrashError
from fsjail._gitignore import escape
from fsjail._judge import Judge, beneath, jail_refusal
from fsjail._limits import Limits
from fsjail._policy import OPERATIONS, Decision, Policy, Verdict
from fsjail._reads import Reads
from fsjail._recover import Trash, undo
from fsjail._root import Root, Target
from fsjail._trash import KeptError, TrashStore
from fsjail._values import NOTHING, Change

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from types import TracebackType

    from fsjail._names import Request

    StrPath = str | os.PathLike[str]

T = TypeVar("T")

# Which tool of the agent is at work, for the log; a context variable, so that threads and tasks differ.
_CALLER: ContextVar[tuple[str | None, str | None]] = ContextVar("fsjail_caller", default=(None, None))

# The disk or its file system, not the caller: a change that ends so may have happened.
_BROKEN = {errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ESTALE}

_ATTEMPTS = 64  # how often a name may change between judging and using it before we give up


class Jail(Reads, Changes):
    """One root directory, a policy, a trash and a log: the one door for an agent's file tools.

    Args:
        root: the directory; held open from here on, so that swapping its path changes nothing.
        policy: the rules; without one everything but secrets can be read and nothing written.
        actor: on whose behalf, for the log and the trash.
        state: folder for the audit log; without it a folder of its own in the user's state folder.
        limits: what one call may take.
        record: "denied+changes", or "all" to log reads too.
        required: whether a change is refused when the log cannot be written.
        trash_location: another folder for the trash than ``.fsjail`` in the root.
        durability: "full" syncs every change to the disk, "none" leaves it to the system.

    Raises:
        FileNotFoundError, NotADirectoryError: the root does not exist or is no directory.
        OSError: ``ENOTSUP`` where this system's primitives do not behave, and on Windows.

    Does not stop: code in the same process or of the same user that does not call it (see
    ``guard``, ``watch`` and ``run`` for those); reading a hard link that somebody placed in the
    root; what a program does later with a file that the policy let be written.
    """

    def __init__(
        self,
        root: StrPath,
        policy: Policy | None = None,
        *,
        actor: str | None = None,
        state: StrPath | None = None,
        limits: Limits | None = None,
        record: Literal["denied+changes", "all"] = "denied+changes",
        required: bool = False,
        trash_location: StrPath | None = None,
        durability: Literal["full", "none"] = "full",
    ) -> None:
        if durability not in {"full", "none"}:
            message = f"durability is 'full' or 'none', not {durability!r}"
            raise ValueError(message)
        self._root = Root(root)
        self.limits = limits or Limits()
        self.actor = actor
        folder = os.fspath(state) if state is not None else str(state_folder(self._root.real))
        self.policy = self._guarded(policy or Policy(), folder, trash_location)
        self.audit = AuditLog(folder, actor=actor, record=record, required=required)
        self._store = TrashStore(
            self._root.fd,
            self._root.real,
            location=None if trash_location is None else os.path.abspath(trash_location),
            durable=durability == "full",
        )
        with suppress(TrashError):  # none yet, or not ours: the first change says so
            self._store.open(create=False)
        self._judge = Judge(self.policy, lambda: self._store.inodes)
        self._written = 0
        self.trash = Trash(self, self._store)

    @classmethod
    def load(cls, start: StrPath = ".", *, actor: str | None = None, state: StrPath | None = None) -> Self:
        """Make the jail that a project's ``fsjail.toml`` or ``[tool.fsjail]`` describes.

        Args:
            start: where to look; the first folder upwards that holds a configuration is the root.
            actor: as for ``Jail``; goes before what the file says.
            state: as for ``Jail``.

        Raises:
            ConfigError: the configuration cannot work; names file and line.
        """
        from fsjail.config import load  # noqa: PLC0415 - the one import upwards, and tomllib is not always needed

        settings = load(start)
        return cls(
            settings.root,
            settings.policy,
            actor=actor or settings.actor,
            state=state,
            limits=settings.limits,
            record=settings.record,
            required=settings.required,
            trash_location=settings.trash_location,
            durability=settings.durability,
        )

    def _guarded(self, policy: Policy, state: str, trash: StrPath | None) -> Policy:
        """Put the jail's own folders out of reach where they lie inside the root."""
        own = []
        for folder in (state, trash):
            if folder is None:
                continue
            below = os.path.relpath(os.path.realpath(folder), self._root.real)
            if below != ".." and not below.startswith("../"):
                pattern = f"/{escape(below)}/"
                own += [("read", pattern), ("write", pattern)]
        return policy.guarded(own) if own else policy

    @property
    def root(self) -> str:
        """The root's real path; for the owner, never for an agent."""
        return self._root.real

    def close(self) -> None:
        """Let go of all descriptors; calling it again does nothing."""
        self.audit.close()
        self._store.close()
        self._root.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._root.real!r}, {self.policy!r})"

    @contextmanager
    def acting(self, tool: str, call_id: str | None = None) -> Iterator[None]:
        """Name the agent's tool, and its id of the call, in the records made inside the ``with`` block."""
        token = _CALLER.set((tool, call_id))
        try:
            yield
        finally:
            _CALLER.reset(token)

    def record(self, op: str, path: str, **fields: Any) -> Event | None:
        """Append to the log, with the tool that is at work; the fields are those of ``AuditLog.record``."""
        tool, call_id = _CALLER.get()
        return self.audit.record(op, path, tool=tool, call_id=call_id, **fields)

    # ── the one function ───────────────────────────────────────────────────────────────────────

    def _mediate(
        self,
        op: str,
        path: StrPath,
        act: Callable[..., T],
        *,
        to: StrPath | None = None,
        judged: str | None = None,
        opened: bool = False,
        follow: bool = True,
        quiet: bool = False,
        extra: dict[str, Any] | None = None,
    ) -> T:
        """Resolve → decide → act → record. Every call goes through here.

        Args:
            op: the name in the log.
            path: the caller's own spelling.
            act: gets the judged target, and the destination's if there is one.
            to: the destination of a copy or move.
            judged: the operation that the policy is asked about, if it is not ``op``.
            opened: whether ``act`` wants the target open for reading.
            follow: whether a link at the last component is followed.
            quiet: whether success is left to a later call to record.
            extra: facts for the log.
        """
        rule = judged or op
        asked = current = os.fspath(path)
        if rule not in {"read", "list", "stat"}:
            self.audit.demand()
        try:
            request = self._root.parse(path)
            sure = self._judge.early(rule, 0, request)
            goal = None
            if to is not None:
                current = os.fspath(to)
                goal = self._parse_goal(to, rule)
            for _ in range(_ATTEMPTS):
                try:
                    current = asked
                    with self._settle(rule, 0, request, sure=sure, opened=opened, follow=follow) as target:
                        if goal is None:
                            result = act(target)
                        else:
                            current = goal.asked
                            with self._settle(rule, 1, goal, kind=target.kind, follow=False) as end:
                                current = asked
                                result = act(target, end)
                        break
                except Moved:  # the name was swapped between judging and using: judge what is there now
                    continue
            else:
                raise OSError(errno.EAGAIN, "the name keeps changing; nothing was changed")
        except (AccessDenied, InvalidName) as error:
            raise self._refused(op, asked, to, rule, error, current) from None
        except OSError as error:
            if rule not in {"read", "list", "stat"} and (
                error.errno in _BROKEN or isinstance(error, KeptError)
            ):
                self._failed(op, asked, to, error)
            raise _named(error, current, to) from None
        return result if quiet else self._recorded(op, asked, result, extra)

    def _parse_goal(self, to: StrPath, rule: str) -> Request:
        goal = self._root.parse(to)
        self._judge.early(rule, 1, goal)
        return goal

    def _settle(
        self,
        op: str,
        end: int,
        request: Request,
        *,
        sure: bool = False,
        opened: bool = False,
        follow: bool = True,
        kind: bool | None = None,
    ) -> Target:
        """Resolve one end and decide; the target comes back held, or nothing is held."""
        hops = self._judge.hops(op, end)
        try:
            if opened:
                target = self._root.open(request, hops)
            else:
                target = self._root.resolve(request, hops, follow=follow)
        except OSError:
            if not sure:  # what is not there is refused like what is
                self._judge.missing(op, end, request)
            raise
        try:
            target.must_dir, target.dot_end = request.must_dir, request.dot_end
            if not sure or target.name != request.name:
                real = target.kind if target.st is not None else (True if op in {"mkdir", "parent"} else kind)
                self._judge.final(op, end, request, target, real)
            self._judge.not_own(op, request, target)
        except BaseException:
            target.close()
            raise
        return target

    def _refused(
        self,
        op: str,
        asked: str,
        to: StrPath | None,
        rule: str,
        error: AccessDenied | InvalidName,
        current: str,
    ) -> AccessDenied | InvalidName:
        """Record a refusal, and give the error its decision and the caller's own spelling."""
        decision, why = None, "jail: invalid name"
        if isinstance(error, InvalidName):
            why, error.filename = error.why, current
        else:
            decision = error.decision
            if decision is None:  # from the resolver, which knows of no rules
                decision = jail_refusal(self.policy, rule, current, "jail: outside").decision
            elif decision.path != current:  # a name that a link or ".." led to
                decision = replace(decision, path=current, resolved=decision.path)
            assert decision is not None  # noqa: S101 - jail_refusal always gives one
            error, why = AccessDenied.of(decision), decision.why
        self.record(
            op,
            asked,
            to=None if to is None else os.fspath(to),
            decision="deny",
            why=why,
            resolved=None if decision is None else decision.resolved,
            rule=None if decision is None else decision.rule,
            errno=error.errno,
        )
        return error

    def _failed(self, op: str, asked: str, to: StrPath | None, error: OSError) -> None:
        """Record a change that the disk has failed: what of it has happened is not certain then.

        A sync behind a finished rename may fail: the item is in the trash, or the name is there.
        """
        self.record(
            op,
            asked,
            to=None if to is None else os.fspath(to),
            decision="error",
            why=f"failed: {os.strerror(error.errno or errno.EIO)}",
            errno=error.errno,
            trash_id=error.kept if isinstance(error, KeptError) else None,
        )

    def _outside(self, op: str, asked: str) -> AccessDenied | InvalidName:
        """Record and give the refusal of what is no name, but leads out, such as a glob pattern."""
        return self._refused(
            op, asked, None, op, jail_refusal(self.policy, op, asked, "jail: outside"), asked
        )

    def _recorded(self, op: str, asked: str, result: T, extra: dict[str, Any] | None) -> T:
        if isinstance(result, Change):
            if result.seq == NOTHING:
                return replace(result, seq=None)
            verdict = self.policy.judge("write", result.to or result.path, None)  # what let it be changed
            event = self.record(
                op,
                result.path,
                to=result.to,
                resolved=result.path,
                decision="allow",
                why=verdict.why if verdict.allowed else "allowed",
                rule=verdict.rule if verdict.allowed else None,
                trash_id=None if result.saved is None else result.saved.id,
                extra=extra,
            )
            return replace(result, seq=None if event is None else event.seq)
        if self.audit.wants_reads:
            self.record(op, asked, decision="allow", why="allowed", extra=extra)
        return result

    # ── ask ────────────────────────────────────────────────────────────────────────────────────

    def check(self, op: str, path: StrPath, to: StrPath | None = None) -> Decision:
        """Say whether an operation would be allowed, and by which rule; changes and logs nothing.

        Args:
            op: read, list, write, edit, mkdir, delete, copy or move.
            path: the name, or the source of a copy or move.
            to: the destination of a copy or move; without it only the source is judged.

        Returns:
            the decision; true when allowed.

        Raises:
            ValueError: there is no such operation.
        """
        if op not in OPERATIONS:
            message = f"there is no operation {op!r}; there are {', '.join(OPERATIONS)}"
            raise ValueError(message)
        asked = os.fspath(path)
        try:
            request = self._root.parse(asked)
            self._judge.early(op, 0, request)
            goal = None if to is None or op not in {"copy", "move"} else self._parse_goal(to, op)
            try:
                for _ in range(_ATTEMPTS):
                    with suppress(Moved):
                        return self._checked(op, request, goal)
                raise OSError(errno.EAGAIN, "the name keeps changing")
            except (AccessDenied, InvalidName):
                raise
            except OSError:  # nothing there yet, or not reachable: the names decide
                name = request.name or "."
                return self.policy.decision(op, asked, self.policy.judge_op(op, name, None))
        except AccessDenied as error:
            if error.decision is not None:
                known = error.decision
                current = asked if to is None or known.path not in {to, os.fspath(to)} else known.path
                return known if known.path == current else replace(known, path=current, resolved=known.path)
            decision = jail_refusal(self.policy, op, asked, "jail: outside").decision
            assert decision is not None  # noqa: S101 - jail_refusal always gives one
            return decision
        except InvalidName as error:
            return self.policy.decision(op, asked, Verdict(allowed=False, why=error.why, rule=None))

    def _checked(self, op: str, request: Request, goal: Request | None) -> Decision:
        follow = op not in {"delete", "move", "mkdir"}
        with self._settle(op, 0, request, follow=follow) as target:
            if goal is not None:
                with self._settle(op, 1, goal, kind=target.kind, follow=False) as end:
                    into_itself(target, end)
                    self._judge_tree(op, target, end)
            elif op in {"delete", "move", "copy"}:
                self._judge_tree(op, target, None)
            kind = target.kind if target.st is not None else (True if op == "mkdir" else None)
            verdict = self.policy.judge_op(op, target.name, kind)
            return self.policy.decision(op, request.asked, verdict, resolved=target.name)

    def _judge_tree(self, op: str, target: Target, end: Target | None) -> None:
        """Judge every name beneath a directory, before anything is touched."""
        if target.st is not None and stat_.S_ISDIR(target.st.st_mode):
            ends = {0: target.name} if end is None else {0: target.name, 1: end.name}
            self._judge.tree(op, beneath(self._root, target.name), ends, target.name)

    # ── recover ────────────────────────────────────────────────────────────────────────────────

    def undo(
        self,
        change: Change | None = None,
        *,
        actor: str | None = None,
        since: datetime | str | float | None = None,
        dry_run: bool = False,
    ) -> list[Change]:
        """Take changes back: this one, or the last one, or all of an actor or since a time.

        Newest first: what was overwritten or deleted is restored, what was created goes to the
        trash, what was moved moves back. Each undo is a change that can be undone.

        Args:
            change: what a call gave back.
            actor: all changes of this actor.
            since: all changes since then (a datetime, ISO 8601 text, or seconds since the epoch).
            dry_run: only say what would be done.

        Returns:
            what was done.

        Raises:
            TrashError: there is nothing to undo, or what was saved is gone.
        """
        return undo(self, change, actor=actor, since=since, dry_run=dry_run)


def _named(error: OSError, asked: str, to: StrPath | None) -> OSError:
    """Put the caller's own path where the system's component is."""
    name = os.fspath(to) if to is not None and isinstance(error, FileExistsError) else asked
    if error.filename2 is not None:  # a rename names two; an OSError can not be rid of the second
        return type(error)(error.errno, error.strerror, name)
    error.filename = name
    return error
