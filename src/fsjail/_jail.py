"""The facade: the only place that says resolve → decide → act → record, in ``Jail._mediate``."""

from __future__ import annotations

import errno
import os
import stat as stat_
from contextlib import suppress
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
from fsjail._records import Records, with_left
from fsjail._recover import Trash, undo
from fsjail._root import Root, Target
from fsjail._trash import KeptError, TrashStore
from fsjail._underway import UnderWay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from types import TracebackType

    from fsjail._names import Request
    from fsjail._values import Change
    from fsjail.exporters import Exporter
    from fsjail.guard import Guard
    from fsjail.watch import Watch

    StrPath = str | os.PathLike[str]

T = TypeVar("T")

# The disk or its file system, not the caller: a change that ends so may have happened.
_BROKEN = {errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ESTALE}

# Nothing is known of the name then: no answer is better than one by its spelling alone.
_NO_ANSWER = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO}

_ATTEMPTS = 64  # how often a name may change between judging and using it before we give up


class Jail(Reads, Changes, Records):
    """One root directory, a policy, a trash and a log: the one door for an agent's file tools.

    Args:
        root: the directory; held open from here on, so that swapping its path changes nothing.
        policy: the rules; without one everything but secrets can be read and nothing written.
        actor: on whose behalf, for the log and the trash.
        state: folder for the audit log; without it a folder of its own in the user's state folder.
        limits: what one call may take.
        record: "denied+changes", or "all" to log reads too.
        required: whether a change is refused when the log cannot be written.
        log_bytes: bytes of a file of the log at which it is rotated; 16 MiB if left out.
        log_files: how many rotated files of the log stay; 8 if left out.
        trash_location: another folder for the trash than ``.fsjail`` in the root.
        durability: "full" syncs every change to the disk, "none" leaves it to the system.

    Raises:
        FileNotFoundError, NotADirectoryError: the root does not exist or is no directory.
        OSError: ``ENOTSUP`` where this system's primitives do not behave, and on Windows.

    Does not stop: code in the same process or of the same user that does not call it (see
    ``guard`` and ``watch`` for those); reading a hard link that somebody placed in the
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
        log_bytes: int | None = None,
        log_files: int | None = None,
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
        size = {"max_bytes": log_bytes, "keep": log_files}
        self.audit = AuditLog(
            folder,
            actor=actor,
            record=record,
            required=required,
            **{key: count for key, count in size.items() if count is not None},
        )
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
        self._under_way = UnderWay(folder)
        self.tripwires: tuple[str, ...] = ()
        self.unexplained = True

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
        exporters: list[Exporter] = []
        if settings.export:
            from fsjail.exporters import named  # noqa: PLC0415 - upwards, and seldom wanted

            exporters = named(settings.export, root=str(settings.root))
        jail = cls(
            settings.root,
            settings.policy,
            actor=actor or settings.actor,
            state=state,
            limits=settings.limits,
            record=settings.record,
            required=settings.required,
            log_bytes=settings.log_bytes,
            log_files=settings.log_files,
            trash_location=settings.trash_location,
            durability=settings.durability,
        )
        jail.tripwires, jail.unexplained = settings.tripwires, settings.unexplained
        for exporter in exporters:
            jail.audit.subscribe(exporter, closing=exporter.close)
        return jail

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
        self._under_way.close()
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
        mark, left = 0, None
        if rule not in {"read", "list", "stat"}:
            self.audit.demand()
            mark = self._under_way.begin()
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
                            result, left = act(target), target.left
                        else:
                            current = goal.asked
                            with self._settle(rule, 1, goal, kind=target.kind, follow=False) as end:
                                current = asked
                                result, left = act(target, end), end.left
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
        else:
            return result if quiet else self._recorded(op, asked, result, with_left(extra, left))
        finally:
            self._under_way.end(mark)

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
            OSError: it cannot be told: no descriptor or memory is left, or the disk fails.
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
            except OSError as error:  # nothing there yet, or not reachable: the names decide
                if error.errno in _NO_ANSWER:
                    raise _named(error, asked, to) from None
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

    # ── see what goes around the door ──────────────────────────────────────────────────────────

    def watch(
        self,
        on_event: Callable[[Event], None] | None = None,
        *,
        tripwires: Iterable[StrPath] | None = None,
        unexplained: bool | None = None,
        polling: bool | None = None,
    ) -> Watch:
        """Report and log changes that did not come through this jail; see ``fsjail.watch.Watch``."""
        from fsjail.watch import Watch  # noqa: PLC0415 - upwards, and watchdog is not always needed

        wires = self.tripwires if tripwires is None else tripwires
        every = self.unexplained if unexplained is None else unexplained
        return Watch(self, on_event, tripwires=wires, unexplained=every, polling=polling)

    def guard(self, mode: Literal["log", "block"] = "log", *, allow_outside: Iterable[StrPath] = ()) -> Guard:
        """Log or refuse raw file calls of this Python process; see ``fsjail.guard.Guard``."""
        from fsjail.guard import Guard  # noqa: PLC0415 - upwards, and the hook stays once it is there

        return Guard(self, mode, allow_outside=allow_outside)


def _named(error: OSError, asked: str, to: StrPath | None) -> OSError:
    """Put the caller's own path where the system's component is."""
    name = os.fspath(to) if to is not None and isinstance(error, FileExistsError) else asked
    if error.filename2 is not None:  # a rename names two; an OSError can not be rid of the second
        return type(error)(error.errno, error.strerror, name)
    error.filename = name
    return error
