"""``fsjail check``: what would be allowed, and by which rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fsjail.cli import _say
from fsjail.cli._open import jail_at

if TYPE_CHECKING:
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
