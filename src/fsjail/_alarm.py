"""What a watch has found, told: to the log as layer ``watch``, and to a function of the caller.

Floods are counted: of each kind so many are told one by one; the rest is in ``extra["more"]`` of a later
record of that kind, once a second. The records and their ``more`` together are all that was found.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fsjail._record import Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsjail._audit import AuditLog
    from fsjail._decision import Rule

_MILD = {"unexplained", "gap", "polling", "blind"}  # nobody has said that these must not happen
_AT_ONCE = 100  # of one kind
_A_SECOND = 20.0


@dataclass(slots=True)
class _Kind:
    """How much of one kind was told, and what waits to be counted."""

    budget: float = _AT_ONCE
    since: float = field(default_factory=time.monotonic)
    more: int = 0
    last: tuple[str, str, dict[str, Any]] | None = None
    told: float = 0.0


class Alarms:
    """Tells findings; one thread at a time.

    Args:
        audit: the log.
        on_event: called with each event, or None.
    """

    def __init__(self, audit: AuditLog, on_event: Callable[[Event], object] | None) -> None:
        self._audit = audit
        self._on_event = on_event
        self._kinds: dict[str, _Kind] = {}
        self._warned = False

    def tell(self, kind: str, op: str, path: str, *, why: str | None = None, **fields: Any) -> None:
        """Tell one finding, or count it.

        Args:
            kind: what it is; ``extra["kind"]`` of the record.
            op: what happened.
            path: to which name.
            why: the label, if it is not the one of the kind.
            fields: as for ``AuditLog.record``.
        """
        fields["why"] = why or f"watch: {kind}"
        state = self._kinds.setdefault(kind, _Kind())
        now = time.monotonic()
        state.budget = min(_AT_ONCE, state.budget + (now - state.since) * _A_SECOND)
        state.since = now
        if state.budget < 1 or state.last is not None:
            state.more += state.last is not None
            state.last = (op, path, fields)
            return
        state.budget -= 1
        self._send(kind, op, path, fields, 0)

    def flush(self, *, all_of_them: bool = False) -> bool:
        """Tell what was only counted, of each kind at most once a second.

        Returns:
            whether something is still counted.
        """
        waits = False
        for kind, state in self._kinds.items():
            if state.last is None:
                continue
            if not all_of_them and time.monotonic() - state.told < 1:
                waits = True
                continue
            (op, path, fields), more = state.last, state.more
            state.last, state.more, state.told = None, 0, time.monotonic()
            self._send(kind, op, path, fields, more)
        return waits

    def _send(self, kind: str, op: str, path: str, fields: dict[str, Any], more: int) -> None:
        extra = {"kind": kind, **fields.pop("extra", {}), **({"more": more} if more else {})}
        decision = "error" if kind in _MILD else "deny"
        event = None
        try:
            event = self._audit.record(op, path, decision=decision, layer="watch", extra=extra, **fields)
        except (
            OSError,
            ValueError,
        ) as error:  # a log that is required and full, or closed: tell all the same
            self._warn("the watch could not log what it found", error)
        if self._on_event is None:
            return
        try:
            self._on_event(event or _made_up(op, path, decision, extra, fields))
        except Exception as error:  # noqa: BLE001 - the caller's code must not end the watch
            self._warn("a watch's on_event failed", error)

    def _warn(self, sentence: str, error: Exception) -> None:
        if self._warned:
            return
        self._warned = True
        import logging  # noqa: PLC0415 - seldom needed

        logging.getLogger("fsjail").warning("%s (told once): %s: %s", sentence, type(error).__name__, error)


def _made_up(op: str, path: str, decision: str, extra: dict[str, Any], fields: dict[str, Any]) -> Event:
    """Make an event that the log has not taken, or has only counted; it has no number and no hash."""
    rule: Rule | None = fields.get("rule")
    return Event(
        v=1,
        seq=0,
        time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        run="",
        layer="watch",
        op=op,
        path=path,
        to=fields.get("to"),
        resolved=None,
        decision=decision,
        why=fields["why"],
        rule=None if rule is None else {"pattern": rule.pattern, "source": rule.source, "line": rule.line},
        errno=None,
        actor={"name": None, "pid": os.getpid()},
        trash_id=fields.get("trash_id"),
        count=1,
        extra=extra,
        prev="",
        hash="",
    )
