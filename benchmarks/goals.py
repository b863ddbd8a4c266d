"""The goals, as data, and the quick look whether they are reached."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.measure import Case, Effort, Row, ratio

if TYPE_CHECKING:
    from benchmarks.run import Bench

# What the fixed piece of work of `systems.Clock` takes on the machine on which the goals were set, in
# seconds. A goal that is a time is multiplied by what it takes on this machine.
CLOCK = 300e-6
SLACK = 1.3  # how far a goal may be missed in the quick look: machines are noisy
EFFORTS = Effort(1.2, 15, 0.01), Effort(4.0, 31, 0.02)
SCALE = {"ms": 1e3, "µs": 1e6}
MEBIBYTE = 1 << 20

Results = Mapping[str, tuple[Case, list[Row]]]


@dataclass(frozen=True, slots=True)
class Goal:
    """One number to reach.

    Attributes:
        what: for a reader.
        case: the key of the case.
        over: the system that it is a ratio to; "clock" for a time; "peers" for the fastest Python peer.
        most: the goal.
        unit: "×", "ms", "µs" or "MiB".
        ours: the system that has to reach it.
        known: what is reached instead, where the goal is not; the quick look guards that.
        why: what stands in the way, as measured.
    """

    what: str
    case: str
    over: str
    most: float
    unit: str = "×"
    ours: str = "fsjail"
    known: float = 0.0
    why: str = ""

    @property
    def bound(self) -> float:
        """What the quick look lets pass."""
        return max(self.most, self.known) * SLACK


# fmt: off
GOALS = (
    Goal("read 1 KiB, depth 4, 50 rules: over Path.read_text", "read.1k", "bare", 1.0),
    Goal(
        "the same: over resolve + is_relative_to + read", "read.1k", "plain", 1 / 8,
        known=0.2, why="the system calls, the object and the decoding alone take nine tenths of the goal",
    ),
    Goal("write a new file: over temp file + rename, both synced", "write.new", "hand", 1.5),
    Goal("overwrite, the old version kept: over the same", "write.over", "hand", 2.5),
    Goal("delete a directory of 10,000 files: over shutil.rmtree", "delete.tree", "bare", 0.5),
    Goal(
        "list a directory of 100", "list.s", "clock", 0.3, "ms",
        known=0.4, why="scandir, an lstat and an Entry for each alone take 0.26 to 0.30 ms",
    ),
    Goal("the same: over the fastest Python peer that tells kind and size", "list.s", "peers", 1.0),
    Goal("glob **/*.py over 5,000 files", "glob.s", "clock", 20.0, "ms"),
    Goal("the same: over the fastest Python peer", "glob.s", "peers", 1.0),
    Goal("grep a literal over 5,000 files: over rg -j1", "grep.literal.s", "rg", 1.3),
    Goal("the same: over the fastest Python peer without ripgrep", "grep.literal.s", "peers", 1.0),
    Goal("walk of 20,000 files: over os.walk", "walk.m", "bare", 1.6),
    Goal("glob over 20,000 files: over glob.glob", "glob.m", "bare", 0.7),
    Goal("grep a rare literal over 20,000 files: over rg -j1", "grep.rare.m", "rg", 1.3),
    Goal("import fsjail: over python -c pass", "start.import", "python", 4.5),
    Goal("fsjail check: over python -c pass", "start.check", "python", 9.0),
    Goal("a refused call outside of the root, logged", "refused.outside", "clock", 60.0, "µs"),
    Goal("a refused call by a rule, logged", "refused.denied", "clock", 60.0, "µs"),
    Goal("memory of a refused read of 200 MiB", "memory.read.fsjail", "", 1.0, "MiB"),
)
# fmt: on
# Peers with an answer of another kind: names without kind and size, or ripgrep's work.
OTHER_ANSWER = {"langchain", "deepagents-rules", "mcp"}
RIPGREP = ("deepagents-rg", "deepagents-rules-rg", "pydantic-ai-rg")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a goal.

    Attributes:
        value: in the goal's unit; None where it could not be measured.
        note: why not, or which peer.
    """

    goal: Goal
    value: float | None
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether it is reached; None where it was not measured."""
        return None if self.value is None else self.value <= self.goal.most

    @property
    def remark(self) -> str:
        """The note, and of a missed goal what stands in the way."""
        return "; ".join(filter(None, (self.note, self.goal.why if self.reached is False else "")))

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.goal.what}: not measured ({self.note})"
        mark = "reached" if self.reached else "MISSED"
        note = f" ({self.remark})" if self.remark else ""
        measured = f"{show(self.value)} {self.goal.unit}, goal {show(self.goal.most)}"
        return f"{self.goal.what}: {measured}: {mark}{note}"


def show(value: float) -> str:
    """A number with as many places as mean something."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"  # noqa: PLR2004 - four digits and more


def outcome(goal: Goal, cases: Results, figures: Mapping[str, Mapping[str, Any]]) -> Outcome:
    """Look a goal up in what was measured."""
    if goal.unit == "MiB":
        figure = figures.get(goal.case, {})
        size = figure.get("bytes")
        return Outcome(
            goal, None if size is None else size / MEBIBYTE, str(figure.get("note", "not in this run"))
        )
    if goal.case not in cases:
        return Outcome(goal, None, "not in this run")
    case, rows = cases[goal.case]
    by_key = {row.key: row for row in rows}
    ours = by_key.get(goal.ours)
    if ours is None or not ours.rounds:
        return Outcome(goal, None, "fsjail was not measured")
    if goal.over == "peers":
        return _over_peers(goal, ours, rows)
    other = by_key.get(goal.over)
    if other is None or not other.rounds:
        return Outcome(goal, None, other.note if other is not None else f"{goal.over} was not measured")
    value = ratio(ours.rounds, other.rounds)
    if goal.over == "clock":
        value *= CLOCK * SCALE[goal.unit] / (case.items if goal.case.startswith("refused") else 1)
    return Outcome(goal, value)


def _over_peers(goal: Goal, ours: Row, rows: list[Row]) -> Outcome:
    peers = [
        row
        for row in rows
        if row.group == "peer"
        and row.rounds
        and row.key not in RIPGREP
        and not (goal.case.startswith("list") and row.key in OTHER_ANSWER)
    ]
    if not peers:
        return Outcome(goal, None, "no peer in this run")
    best = min(peers, key=lambda row: statistics.median(row.rounds))
    return Outcome(goal, ratio(ours.rounds, best.rounds), best.title)


def outcomes(cases: Results, figures: Mapping[str, Mapping[str, Any]]) -> list[Outcome]:
    """What became of all goals."""
    return [outcome(goal, cases, figures) for goal in GOALS]


def quick(make: Callable[..., Bench], efforts: tuple[Effort, Effort] = EFFORTS) -> int:
    """Measure the goals only, with fsjail and what stands in them; a missed one is measured again.

    Args:
        make: makes a run.
        efforts: at first, and for what was missed.

    Returns:
        the exit code: 1 if one, or what is known to be reached instead, is missed by more than `SLACK`.
    """
    keys = frozenset(goal.case for goal in GOALS)
    wanted = keys | {key.partition(".")[0] for key in keys}
    systems = frozenset({"fsjail", "typer"} | {goal.over for goal in GOALS})
    bench: Bench = make(effort=efforts[0], wanted=wanted.__contains__, systems=systems, log=_silent)
    bench.run()
    found = _without_peers(bench)
    late = {one.goal.case for one in found if _missed(one)}
    if late:
        bench.effort = efforts[1]
        before = {one.goal: one for one in found}
        for key in sorted(late & bench.cases.keys()):
            bench.measure(bench.cases[key][0])
        found = [min(one, before[one.goal], key=_value) for one in _without_peers(bench)]
    for one in found:
        print(one, flush=True)
    failed = [one for one in found if _missed(one)]
    count = f"{len(failed)} of {len(found)} goals missed"
    print(f"{count} by more than {SLACK - 1:.0%} of what can be reached")
    return 1 if failed else 0


def _without_peers(bench: Bench) -> list[Outcome]:
    return [one for one in outcomes(bench.cases, bench.figures) if one.goal.over != "peers"]


def _missed(one: Outcome) -> bool:
    return one.value is not None and one.value > one.goal.bound


def _value(one: Outcome) -> float:
    return float("inf") if one.value is None else one.value


def _silent(_: str) -> None:
    """Say nothing."""
