"""Measures fsjail beside what people use instead, and writes RESULTS.md and results.svg.

python -m benchmarks.run                    everything (about ten minutes)
python -m benchmarks.run --only read,grep   parts; the other results are kept
python -m benchmarks.run --gigabyte         overwrites 1 GiB too (needs 4 GiB of disk)
python -m benchmarks.run --quick            the goals only; fails if one is missed by 30 %
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import goals, growth, policies, processes, report
from benchmarks.answers import Mismatch, compare
from benchmarks.hosts import KINDS, Hosts, Seat
from benchmarks.measure import Case, Effort, Row, Way, measure
from benchmarks.place import TINY, Place, Scale
from benchmarks.systems import FIRST, Missing, Setup
from benchmarks.trees import patterns
from benchmarks.works import Work, exists, works

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RULES = 50
TOO_SLOW = 1.5  # seconds on the smaller size: left out of the larger one
LEFT_OUT = "left out: "
TINY_EFFORT = Effort(0.05, 3, 0.001)
GIGABYTE_NEEDS = 5 << 30
PARTS = (
    "read", "write", "list", "walk", "glob", "grep", "delete", "refused",
    "policy", "start", "memory", "growth",
)  # fmt: skip


@dataclass(slots=True)
class Bench:
    """A run: what is wanted, where, and what came out.

    Attributes:
        wanted: whether a case is measured, by its key.
        wrong: answers that are not what the trees hold, and not explained.
        systems: those that are measured; None for all.
    """

    place: Place
    hosts: Hosts
    effort: Effort
    wanted: Callable[[str], bool]
    systems: frozenset[str] | None = None
    cases: dict[str, tuple[Case, list[Row]]] = field(default_factory=dict)
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    log: Callable[[str], None] = print

    def run(self) -> None:
        """Measure all that is wanted."""
        for work in works(self.place):
            if self.wanted(work.key):
                self.measure(self.build(work))
        for case in self._more():
            self.measure(case)
        if self.wanted("memory"):
            readers = [key for key in processes.READERS if self.systems is None or key in self.systems]
            self.figures.update(processes.memory(self.place, list(self.hosts.setup.rules), tuple(readers)))

    def _more(self) -> Iterator[Case]:
        scale, base = self.place.scale, self.place.base
        yield from policies.cases(scale, base, self.hosts.setup.programs.get("git"), self.wanted)
        if self.wanted("start"):
            yield from processes.starts(self.place, self.systems)
        if self.wanted("growth"):
            yield from growth.cases(self.place, self.effort)

    def measure(self, case: Case) -> None:
        """Measure a case, and say it at once."""
        begin = time.monotonic()
        rows = measure(case, self.effort)
        self.cases[case.key] = case, rows
        self.log(f"{case.title}  [{case.key}, {time.monotonic() - begin:.1f} s]")
        for row in rows:
            if row.group != "clock":
                self.log(f"  {report.line(case, row)}")

    def build(self, work: Work) -> Case:
        """Make the ways of a work, and check each system's answer."""
        case = Case(work.key, work.title, [], work.items, work.prepare is not None, work.sync)
        for key in work.systems:
            if self.systems is not None and key not in self.systems:
                continue
            seat = self.hosts.seat(key, work.place())
            way = Way(key, seat.title, None, seat.missing, seat.group)
            if not seat.missing and work.op.removeprefix(FIRST) not in seat.ops:
                continue
            way.note = way.note or self._slow(key, work)
            case.ways.append(way)
            if way.note:
                continue
            args = tuple(value.format(key=key) if isinstance(value, str) else value for value in work.args)
            try:
                way.note, runs = self._check(seat, work, args)
            except Missing as error:
                way.note, runs = str(error), False
            except Mismatch as error:
                way.note, runs = f"a wrong answer: {error}", False
                self.wrong.append(f"{seat.title}: {error}")
            if runs:
                way.run = self._run(seat, work, args)
        return case

    def _slow(self, key: str, work: Work) -> str:
        case, rows = self.cases.get(work.larger_than, (None, []))
        for row in rows:
            if case is None or row.key != key:
                continue
            if row.note.startswith(LEFT_OUT):
                return row.note
            if (row.median or 0) > TOO_SLOW:
                return f"{LEFT_OUT}{row.median:.1f} s for {case.items:,}"
        return ""

    def _check(self, seat: Seat, work: Work, args: tuple[Any, ...]) -> tuple[str, bool]:  # noqa: PLR0911 - a list of kinds
        """The note for a system's answer, and whether it is worth measuring."""
        root = work.place()
        if seat.group == "clock":
            return "", True
        if work.prepare is not None:
            name = work.prepare()
            seat.answer(work.op, (name,))
            if exists(root, name):
                return "refuses: a deny rule could match beneath", False
            return "", True
        answer = seat.answer(work.op, args)
        op = work.op.removeprefix(FIRST)
        if op == "walk":
            right = work.right() if work.right is not None else frozenset()
            if seat.group == "ours" and answer not in right:
                raise Mismatch(f"walk: {answer}, not one of {sorted(right)}")
            return ("", True) if answer in right else (f"counts {answer:,}", True)
        if work.op == "refused":
            return ("", True) if answer == work.items else ("does not refuse it", False)
        if work.right is None:
            return "", True
        note = compare(op, answer, root, work.right(), ruled=seat.ruled)
        if note and seat.group == "ours":
            raise Mismatch(f"{op}: {note}")  # fsjail has no difference that could be explained
        return note, True

    def _run(self, seat: Seat, work: Work, args: tuple[Any, ...]) -> Callable[[int], float]:
        prepare = work.prepare
        if prepare is None:
            return lambda number: seat.time(work.op, args, number)
        return lambda number: sum(seat.time(work.op, (prepare(),), 1) for _ in range(number))


def programs() -> dict[str, str]:
    """The programs of other kinds, where they are: beside this Python, or on the search path."""
    found = {}
    here = os.path.dirname(sys.executable)
    for name in ("rg", "git", "node", "trash-put"):
        path = f"{here}/{name}" if os.path.exists(f"{here}/{name}") else shutil.which(name)
        if path:
            found[name] = path
    script = "node_modules/@modelcontextprotocol/server-filesystem/dist/index.js"
    if os.path.exists(f"{sys.prefix}/{script}"):
        found["server"] = f"{sys.prefix}/{script}"
    return found


def main(argv: list[str] | None = None) -> int:
    """Run what the command line asks for; gives the exit code."""
    options = _options(argv)
    scale = TINY if options.tiny else Scale()
    with tempfile.TemporaryDirectory(prefix="fsjail-bench-", dir=options.temp) as base:
        base = os.path.realpath(base)  # noqa: PLW2901 - the same folder
        if options.gigabyte:
            if shutil.disk_usage(base).free < GIGABYTE_NEEDS:
                print("left out: overwriting 1 GiB needs 5 GiB of free disk")
            else:
                scale = Scale(most_bytes=1 << 30)
        setup = Setup(base, tuple(patterns(RULES)), programs())
        with Hosts(setup) as hosts:
            if options.quick:
                place = Place(base, replace(scale, walked=()))
                efforts = (TINY_EFFORT, TINY_EFFORT) if options.tiny else goals.EFFORTS
                return goals.quick(lambda **how: Bench(place, hosts, **how), efforts)
            place = Place(base, scale)
            parts = frozenset(options.only.split(",")) if options.only else frozenset(PARTS)
            bench = Bench(
                place,
                hosts,
                TINY_EFFORT if options.tiny else Effort(options.seconds),
                lambda key: key.partition(".")[0] in parts,
                frozenset(key for key, kind in KINDS.items() if not kind.apart) if options.tiny else None,
            )
            begin = time.monotonic()
            try:
                bench.run()
            finally:  # what was measured until an interruption is kept
                taken = time.monotonic() - begin
                reached = report.write(Path(options.out), bench.cases, bench.figures, setup, base, taken)
    print("\n".join([reached, *(f"WRONG ANSWER  {text}" for text in bench.wrong)]))
    return 1 if bench.wrong else 0


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help=f"parts, with commas between them: {','.join(PARTS)}")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long to measure each case, about")
    parser.add_argument("--gigabyte", action="store_true", help="overwrite 1 GiB too")
    parser.add_argument("--quick", action="store_true", help="only the goals, in less than a minute")
    parser.add_argument("--tiny", action="store_true", help="tiny trees, without the peers: for the tests")
    parser.add_argument("--out", default=os.path.dirname(__file__), help="folder for the results")
    parser.add_argument("--temp", default=None, help="folder for the trees, on the disk to measure")
    options = parser.parse_args(argv)
    if unknown := set(filter(None, options.only.split(","))) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return options


if __name__ == "__main__":
    sys.exit(main())
