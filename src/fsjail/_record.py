"""One record of the audit log: its values, its text, its hash; pure, never touches the disk.

A record is one line: a JSON object in ASCII. Its ``hash`` is the SHA-256, in hex, of ``prev`` followed by
the record's own bytes without ``,"hash":"…"``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as _quote
from typing import Any, NamedTuple, Protocol

NONE = "0" * 64  # the hash before the first record
NAME, PATH, WHY = 256, 4096, 8192  # limits in characters; no legal path is longer
_SEAL = re.compile(rb',"hash":"([0-9a-f]{64})"\}\Z')


@dataclass(frozen=True, slots=True)
class Event:
    """One record of the log: what was tried and what became of it."""

    v: int
    seq: int
    time: str
    run: str
    layer: str
    op: str
    path: str
    to: str | None
    resolved: str | None
    decision: str
    why: str
    rule: dict[str, Any] | None
    errno: int | None
    actor: dict[str, Any]
    trash_id: str | None
    count: int
    extra: dict[str, Any] | None
    prev: str
    hash: str


FIELDS = tuple(Event.__dataclass_fields__)
_KEYS = frozenset(FIELDS)


@dataclass(frozen=True, slots=True)
class Verification:
    """What `AuditLog.verify` found; true when the chain holds.

    Attributes:
        ok: no record was edited, dropped, swapped or cut.
        records: how many whole records were read.
        problems: sentences with file, line and seq, the first bad record first. When ``ok``, they only name
            torn records that were repaired and records that were lost to a full disk.
    """

    ok: bool
    records: int
    problems: tuple[str, ...]

    def __bool__(self) -> bool:
        """Tell whether the chain holds."""
        return self.ok


class Rule(Protocol):
    """What a rule needs to be logged."""

    @property
    def pattern(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def line(self) -> int | None: ...


class Entry(NamedTuple):
    """What the caller said about one event."""

    op: str
    path: str
    decision: str
    why: str
    to: str | None = None
    resolved: str | None = None
    rule: Rule | None = None
    errno: int | None = None
    trash_id: str | None = None
    layer: str = "jail"
    extra: dict[str, Any] | None = None
    tool: str | None = None
    call_id: str | None = None


class Author:
    """Who writes: one run of one process. Turns what the caller said into a record."""

    def __init__(self, run: str, name: str | None, argv: list[str]) -> None:
        """Note what is the same in every record of this process.

        Args:
            run: the id of the run.
            name: the name of who acts.
            argv: the command line, without secrets.
        """
        self._run = run
        self._who: dict[str, Any] = {
            "name": _cut(name, NAME),
            "tool": None,
            "call_id": None,
            "pid": os.getpid(),
            "exe": _cut(sys.executable or None, PATH),
            "argv": argv,
        }
        self._who_head = f'"actor":{{"name":{_text(name, NAME)},"tool":'
        own = _dump({key: self._who[key] for key in ("pid", "exe", "argv")})
        self._who_tail = f",{own[1:]}"

    def fields(self, entry: Entry, count: int) -> str:
        """Encode all but v, seq, time, prev and hash; by hand: twice as fast as ``json.dumps``."""
        op, path, decision, why, to, resolved, rule, errno, trash_id, layer, extra, tool, call_id = entry
        return (
            f'"run":"{self._run}","layer":{_quote(layer)},"op":{_quote(op)},"path":{_text(path, PATH)},'
            f'"to":{_text(to, PATH)},"resolved":{_text(resolved, PATH)},"decision":{_quote(decision)},'
            f'"why":{_text(why, WHY)},"rule":{"null" if rule is None else _rule_text(rule)},'
            f'"errno":{"null" if errno is None else int(errno)},'
            f"{self._who_head}{_text(tool, NAME)},"
            f'"call_id":{_text(call_id, NAME)}{self._who_tail},"trash_id":{_text(trash_id, NAME)},'
            f'"count":{count},"extra":{"null" if extra is None else _dump(extra)}'
        )

    def event(self, entry: Entry, count: int, seq: int, time: str, prev: str, digest: str) -> Event:
        """Give the record as a value, the same that is read back from its text."""
        op, path, decision, why, to, resolved, rule, errno, trash_id, layer, extra, tool, call_id = entry
        who = self._who.copy()
        who["tool"], who["call_id"], who["argv"] = _cut(tool, NAME), _cut(call_id, NAME), [*who["argv"]]
        return Event(
            1,
            seq,
            time,
            self._run,
            layer,
            op,
            path if len(path) <= PATH else path[:PATH],
            _cut(to, PATH),
            _cut(resolved, PATH),
            decision,
            why if len(why) <= WHY else why[:WHY],
            _rule(rule),
            errno,
            who,
            trash_id,
            count,
            extra,
            prev,
            digest,
        )


def parse(line: bytes) -> dict[str, Any] | None:
    """Decode a line; None if it is no record."""
    if not _SEAL.search(line):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if (
        not isinstance(found, dict)
        or not found.keys() >= _KEYS
        or type(found["seq"]) is not int
        or not isinstance(found["prev"], str)
        or not isinstance(found["time"], str)
        or not isinstance(found["actor"], dict)
        or not isinstance(found["extra"], dict | None)
    ):
        return None
    return found


def fits(line: bytes, prev: str) -> bool:
    """Tell whether the hash at the end of a line is that of its bytes."""
    bare, _, seal = line.rpartition(b',"hash":"')
    digest = hashlib.sha256(prev.encode("utf-8", "replace") + bare + b"}").hexdigest()
    return seal == f'{digest}"}}'.encode("ascii")


def _cut(text: str | None, limit: int) -> str | None:
    return text if text is None or len(text) <= limit else text[:limit]


def _text(text: str | None, limit: int) -> str:
    """Encode a text for JSON; ASCII only, so that the bytes of odd names survive as lone surrogates."""
    if text is None:
        return "null"
    return str(_quote(text if len(text) <= limit else text[:limit]))


_dump = json.JSONEncoder(separators=(",", ":"), default=str).encode


def _rule(rule: Rule | None) -> dict[str, Any] | None:
    if rule is None:
        return None
    return {"pattern": _cut(rule.pattern, PATH), "source": _cut(rule.source, PATH), "line": rule.line}


def _rule_text(rule: Rule) -> str:
    line = "null" if rule.line is None else int(rule.line)
    return f'{{"pattern":{_text(rule.pattern, PATH)},"source":{_text(rule.source, PATH)},"line":{line}}}'
