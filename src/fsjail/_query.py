"""Which records of the log somebody wants to see: tested on the bytes of a line, before it is decoded.

A record begins with the same fields in the same order, so one regular expression reads them at a fifth of
the cost of decoding the line. A line that it cannot read is decoded and asked the slow way. Inside a JSON
text a quote is escaped, so no file name can pose as a field.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fsjail._gitignore import parse as parse_pattern
from fsjail._matcher import Matcher
from fsjail._record import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    Moment = datetime | str | float
    Names = str | Collection[str]

_TEXT = rb'"(?:[^"\\]++|\\.)*+"'
_FRONT = re.compile(
    rb'\{"v":[0-9]+,"seq":[0-9]+,"time":"([^"\\]*)","run":"[^"\\]*","layer":"([^"\\]*)","op":"([^"\\]*)"'
    rb',"path":(%b),"to":(null|%b),"resolved":(null|%b),"decision":"([^"\\]*)"' % (_TEXT, _TEXT, _TEXT)
)
_ACTOR = re.compile(rb',"actor":\{"name":(null|%b)' % _TEXT)
_SEAL, _SEALED = b',"hash":"', 75  # how a record ends: `,"hash":"` and 66 more bytes
_REMEMBERED = 4096  # paths; the same come again and again


class Query:
    """A test for lines of the log; what it wants is said as to ``AuditLog.events``."""

    def __init__(
        self,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        denied: bool | None = None,
        decision: Names | None = None,
        actor: Names | None = None,
        op: Names | None = None,
        layer: Names | None = None,
        path: Names | None = None,
    ) -> None:
        """Read what is wanted.

        Raises:
            ValueError: a time that is none, or a pattern that can never match.
        """
        self._since = None if since is None else utc(since)
        self._until = None if until is None else utc(until)
        kinds = _names(decision)
        if denied is not None:
            kinds = (kinds or frozenset(("allow", "deny", "error"))) & frozenset(
                ("deny",) if denied else ("allow", "error")
            )
        self._decisions, self._ops, self._layers = (
            None if names is None else _bytes(names) for names in (kinds, _names(op), _names(layer))
        )
        self._actors = _names(actor)
        self._matches = None if path is None else _matching(path)
        self._timed = self._since is not None or self._until is not None
        parts = (self._decisions, self._ops, self._layers, self._actors, self._matches)
        self._everything = not self._timed and all(part is None for part in parts)

    def wants(self, line: bytes) -> bool:
        """Tell whether a line is a record that is wanted; if damaged, it may still turn out to be none."""
        if line[-_SEALED : -_SEALED + len(_SEAL)] != _SEAL:
            return False
        if self._everything:
            return True
        found = _FRONT.match(line)
        if found is None:
            record = parse(line)
            return record is not None and self._wants(record)
        time, layer, op, path, to, resolved, decision = found.groups()
        return (
            (self._decisions is None or decision in self._decisions)
            and (self._ops is None or op in self._ops)
            and (self._layers is None or layer in self._layers)
            and (not self._timed or self._in_time(time.decode("utf-8", "replace")))
            and (self._actors is None or self._is_by(line, found.end()))
            and (self._matches is None or any(map(self._matches, _texts(path, to, resolved))))
        )

    def _wants(self, record: dict[str, Any]) -> bool:
        """Ask the same of a record that was decoded."""
        texts = [text for key in ("path", "to", "resolved") if isinstance(text := record[key], str)]
        return (
            self._in_time(record["time"])
            and (self._decisions is None or _bytes([record["decision"]]) <= self._decisions)
            and (self._ops is None or _bytes([record["op"]]) <= self._ops)
            and (self._layers is None or _bytes([record["layer"]]) <= self._layers)
            and (self._actors is None or record["actor"].get("name") in self._actors)
            and (self._matches is None or any(map(self._matches, texts)))
        )

    def _in_time(self, time: str) -> bool:
        return (self._since is None or time >= self._since) and (self._until is None or time <= self._until)

    def _is_by(self, line: bytes, start: int) -> bool:
        found = _ACTOR.search(line, start)
        return found is not None and any(name in (self._actors or ()) for name in _texts(found[1]))


def _names(given: Names | None) -> frozenset[str] | None:
    return None if given is None else frozenset((given,) if isinstance(given, str) else given)


def _bytes(names: Collection[object]) -> frozenset[bytes]:
    return frozenset(str(name).encode("utf-8", "surrogatepass") for name in names)


def _texts(*quoted: bytes) -> list[str]:
    """Decode JSON texts; null is left out."""
    found = []
    for text in quoted:
        if b"\\" in text:
            try:
                found.append(str(json.loads(text)))
            except ValueError:  # damaged: decoding the line will say so
                continue
        elif text != b"null":
            found.append(text[1:-1].decode("utf-8", "replace"))
    return found


def _matching(patterns: Names) -> Callable[[str], bool]:
    """Make the test of a path: whether one of the patterns matches it or a folder above it."""
    matchers = []
    for text in (patterns,) if isinstance(patterns, str) else patterns:
        pattern = parse_pattern(text)
        if pattern is None or pattern.negative:
            msg = f"{text!r} is no pattern to look for; write \\ before a first ! or #"
            raise ValueError(msg)
        matchers.append(Matcher([pattern]))
    known: dict[str, bool] = {}

    def matches(path: str) -> bool:
        answer = known.get(path)
        if answer is None:
            if len(known) >= _REMEMBERED:
                known.clear()
            # A name that was refused may be absolute, or spelled in any way.
            parts = [part for part in path.split("/") if part not in {"", "."}]
            names = ["/".join(parts[:end]) for end in range(len(parts), 0, -1)]
            try:
                answer = any(m.last_match(name, True) is not None for name in names for m in matchers)
            except UnicodeEncodeError:  # a name that was refused because no file can have it
                answer = False
            known[path] = answer
        return answer

    return matches


def utc(moment: Moment) -> str:
    """Spell a moment as records do, so that texts compare.

    Args:
        moment: a datetime or ISO 8601 text (local time if it has no zone), or seconds since the epoch.

    Raises:
        ValueError: a text that is no date.
    """
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    elif not isinstance(moment, datetime):
        moment = datetime.fromtimestamp(moment, UTC)
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
