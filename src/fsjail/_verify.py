"""Checking an audit log: every record against its hash, its predecessor and the head."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from fsjail._logfiles import LOG, read_lines
from fsjail._record import NONE, Verification, fits, parse

if TYPE_CHECKING:
    from fsjail._logfiles import Snapshot

_PROBLEMS = 50  # how many are told


class Check:
    """One walk along the chain."""

    def __init__(self, snapshot: Snapshot) -> None:
        """Stand at the beginning of the chain."""
        self._files = snapshot.files
        self._head = snapshot.head
        self._problems: list[str] = []
        self._ok = True
        self._records = 0
        self._seq, self._hash = 0, NONE
        self._bad: tuple[str, bytes] | None = None  # a line that is no record; a repair may explain it
        self._head_seen = False

    def run(self) -> Verification:
        """Read all files to the end and say what was found."""
        for name, fd, size in self._files:
            if fd < 0:
                self._say(f"{name}: not a readable regular file")
                continue
            for number, line in enumerate(read_lines(fd, size), start=1):
                self._look(f"{name}, line {number}", line)
        self._settle(None)
        head = self._head
        if head is None:
            if self._records:
                self._say("head: missing or damaged, so a cut of the tail would not show")
        elif head.seq > self._seq:
            name = self._files[-1][0] if self._files else LOG
            self._say(f"{name}: seq {self._seq + 1} to {head.seq} are missing at the end (cut)")
        elif head.seq and not self._head_seen:
            self._say(f"head: the record with seq {head.seq} and its hash is not in the log")
        return Verification(ok=self._ok, records=self._records, problems=tuple(self._problems))

    def _say(self, problem: str, *, broken: bool = True) -> None:
        self._ok = self._ok and not broken
        if len(self._problems) < _PROBLEMS:
            self._problems.append(problem)

    def _settle(self, record: dict[str, Any] | None) -> None:
        """Judge the line before that was no record: torn and repaired, or damaged."""
        if self._bad is None:
            return
        (where, line), self._bad = self._bad, None
        facts = (record["extra"] or {}) if record and record["op"] == "repair" else {}
        known = {"bytes": len(line), "sha256": hashlib.sha256(line).hexdigest()}
        if record and all(facts.get(key) == value for key, value in known.items()):
            self._say(
                f"{where}: a torn record of {len(line)} bytes, repaired by seq {record['seq']}", broken=False
            )
        else:
            self._say(f"{where}: not a record (torn or damaged), after seq {self._seq}")

    def _look(self, where: str, line: bytes) -> None:
        record = parse(line)
        self._settle(record)
        if record is None:
            self._bad = (where, line)
            return
        self._records += 1
        seq, digest, prev = record["seq"], record["hash"], record["prev"]
        where = f"{where}, seq {seq}"
        if not fits(line, prev):
            self._say(f"{where}: edited: its hash does not fit its bytes")
        self._follow(where, seq, prev)
        if self._head is not None and seq == self._head.seq:
            self._head_seen = self._head_seen or digest == self._head.hash
        if record["layer"] == "audit" and record["op"] == "repair":
            if record["why"] == "audit: head missing":
                self._say(f"{where}: the head was missing here: what came before may have been cut")
            elif record["why"] == "audit: records lost":
                lost = (record["extra"] or {}).get("lost")
                self._say(f"{where}: {lost} records before it could not be written", broken=False)
        self._seq, self._hash = seq, digest

    def _follow(self, where: str, seq: int, prev: str) -> None:
        """Compare with the record before."""
        if self._records == 1:  # rotation may have dropped what came before, and told the head
            if self._head is not None and seq > self._head.first:
                self._say(f"{where}: seq {self._head.first} to {seq - 1} are missing before it")
            elif seq == 1 and prev != NONE:
                self._say(f"{where}: does not begin the chain")
        elif seq > self._seq + 1:
            self._say(f"{where}: seq {self._seq + 1} to {seq - 1} are missing before it (dropped or swapped)")
        elif seq <= self._seq:
            self._say(f"{where}: out of order: it follows seq {self._seq} (swapped or put in)")
        elif prev != self._hash:
            self._say(f"{where}: does not follow the record before it, which was replaced")
