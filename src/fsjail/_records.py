"""What a jail writes into its log: refusals, failures, and what was done."""

from __future__ import annotations

import errno
import os
import stat as stat_
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from fsjail._door import Door
from fsjail._errors import AccessDenied, InvalidName
from fsjail._judge import jail_refusal
from fsjail._trash import KeptError
from fsjail._values import NOTHING, Change

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsjail._audit import AuditLog, Event

    StrPath = str | os.PathLike[str]

T = TypeVar("T")

# Which tool of the agent is at work, for the log; a context variable, so that threads and tasks differ.
_CALLER: ContextVar[tuple[str | None, str | None]] = ContextVar("fsjail_caller", default=(None, None))


class Records(Door):
    """The last of the four steps, for ``Jail._mediate``."""

    audit: AuditLog

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
            if decision is not error.decision:
                error = AccessDenied.of(decision)
            why = decision.why
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


def with_left(extra: dict[str, Any] | None, left: os.stat_result | None) -> dict[str, Any] | None:
    """Add what a change left at its name: a watch tells by it the jail's own work from what came after."""
    if left is None:
        return extra
    fact = f"{left.st_ino}"
    if not stat_.S_ISDIR(left.st_mode):  # a directory's own size and time change with what is put into it
        fact = f"{fact}:{left.st_size}:{left.st_mtime_ns}"
    return {"left": fact} if extra is None else {**extra, "left": fact}
