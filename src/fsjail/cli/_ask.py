"""``fsjail check`` and ``fsjail log``: what would be allowed, and what was tried."""

# ruff: noqa: PLC0415 - what only one command needs is imported when that command runs

from __future__ import annotations

from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fsjail.cli import _say
from fsjail.cli._open import jail_at, moment

if TYPE_CHECKING:
    from fsjail._audit import Event
    from fsjail._policy import Decision, Rule


def rule_document(rule: Rule | None) -> dict[str, Any] | None:
    """Write a rule for ``--json``."""
    return None if rule is None else {"pattern": rule.pattern, "source": rule.source, "line": rule.line}


def decision_document(decision: Decision) -> dict[str, Any]:
    """Write a decision for ``--json``."""
    return {
        "allowed": decision.allowed,
        "operation": decision.op,
        "path": decision.path,
        "resolved": decision.resolved,
        "why": decision.why,
        "rule": rule_document(decision.rule),
        "sentence": str(decision),
    }


def place(rule: Rule | dict[str, Any] | None) -> str:
    """Say where a rule stands, as ``pattern (file:line)``."""
    if rule is None:
        return ""
    known = rule if isinstance(rule, dict) else rule_document(rule) or {}
    line = f":{known['line']}" if known.get("line") is not None else ""
    return f"{known.get('pattern')} ({known.get('source')}{line})"


def check(root: str | None, operation: str, path: str, to: str | None, *, as_json: bool) -> int:
    """Ask the jail; nothing is done and nothing is logged.

    Returns:
        0 if the operation would be allowed, 1 if not.
    """
    with jail_at(root) as jail:
        decision = jail.check(operation, path, to) if to is not None else jail.check(operation, path)
    if as_json:
        _say.emit(decision_document(decision))
    else:
        paint = _say.painter()
        _say.say(paint("green" if decision.allowed else "red", _say.safe(str(decision))))
        if decision.rule is not None:
            _say.say(f"  rule {_say.safe(place(decision.rule))}")
    return 0 if decision.allowed else 1


def event_document(event: Event) -> dict[str, Any]:
    """Write an event for ``--json``; the fields are those of the log."""
    from dataclasses import asdict

    return asdict(event)


def log(
    root: str | None, *, denied: bool, since: str | None, actor: str | None, limit: int, as_json: bool
) -> int:
    """Print the last events, oldest first.

    Returns:
        0, also if there are none.
    """
    start = moment(since)
    with jail_at(root) as jail:
        events = jail.audit.events(since=start, denied=True if denied else None, actor=actor)
        seen = 0
        last: deque[Event] = deque(maxlen=limit or None)
        for event in events:
            seen += 1
            last.append(event)
    if as_json:
        _say.emit({"events": [event_document(event) for event in last], "matching": seen})
        return 0
    if not last:
        _say.say("No such events." if denied or since or actor else "Nothing has been logged yet.")
        return 0
    _say.table(("TIME", "WHO", "WHAT", "PATH", "OUTCOME", "WHY"), [event_row(event) for event in last])
    if seen > len(last):
        _say.say(f"{len(last):,} of {_say.number(seen, 'event')}; --limit 0 shows all.")
    return 0


def event_row(event: Event) -> tuple[str, ...]:
    """Write an event as a table's row."""
    path = event.path if event.to is None else f"{event.path} -> {event.to}"
    outcome = {"allow": "done", "deny": "denied", "error": "failed"}.get(event.decision, event.decision)
    if event.count > 1:
        outcome += f" x{event.count}"
    why = event.why if not event.rule else f"{event.why}: {place(event.rule)}"
    return (local(event.time), str(event.actor.get("name") or "-"), event.op, path, outcome, why)


def local(time: str) -> str:
    """Write the log's UTC time as local time in whole seconds; as it is if it is no time."""
    try:
        return datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return time


def verify(root: str | None, *, as_json: bool) -> int:
    """Prove the chain of the log.

    Returns:
        0 if it is whole, 1 if something was changed, cut out or cut off.
    """
    with jail_at(root) as jail:
        proof = jail.audit.verify()
    if as_json:
        _say.emit({"ok": proof.ok, "records": proof.records, "problems": list(proof.problems)})
        return 0 if proof.ok else 1
    records = _say.number(proof.records, "record")
    _say.say(f"The log is whole: {records}." if proof.ok else f"The log is damaged; {records} read.")
    for problem in proof.problems:
        _say.say(f"  {_say.safe(problem)}")
    return 0 if proof.ok else 1
