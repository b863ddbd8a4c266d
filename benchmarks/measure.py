"""Measuring ways to do the same work: in turn, so that a slow moment of the machine meets them all."""

from __future__ import annotations

import gc
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LEAST = 3  # rounds that every way gets
ALONE = 4.0  # seconds: a way that takes longer is measured once


@dataclass(slots=True)
class Way:
    """One system's way to do the work of a case.

    Attributes:
        key: the system.
        title: its name for a reader.
        run: does the work so many times and gives the seconds that it took.
        note: what its answer lacks or has more, or why it was left out.
        group: "ours", "peer", "tool" (a program, as a limit) or "plain" (the standard library).
        items: as in `Case`, where the ways of a case differ in it.
    """

    key: str
    title: str
    run: Callable[[int], float] | None
    note: str = ""
    group: str = "peer"
    items: int = 0


@dataclass(slots=True)
class Case:
    """One kind of work, and the ways to do it.

    Attributes:
        key: its name in the results, such as "read.1k".
        title: for a reader.
        ways: fsjail's first.
        items: what a run's time is divided by for the cost per item.
        once: whether a run cannot be repeated without being prepared again.
        sync: what is synced to the disk, where something is changed.
    """

    key: str
    title: str
    ways: list[Way]
    items: int = 1
    once: bool = False
    sync: str = ""


@dataclass(slots=True)
class Row:
    """What was measured of a way; seconds.

    Attributes:
        ratio: how many times as long as fsjail took, the median over the rounds.
    """

    key: str
    title: str
    group: str
    note: str
    items: int = 1
    median: float | None = None
    low: float | None = None
    high: float | None = None
    ratio: float | None = None
    rounds: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure.

    Attributes:
        seconds: what a case may take, about; the slowest way gets three rounds all the same.
        rounds: most rounds.
        batch: seconds that the repetitions of one way in one round should take.
    """

    seconds: float = 6.0
    rounds: int = 31
    batch: float = 0.02


def measure(case: Case, effort: Effort) -> list[Row]:
    """Measure all ways of a case in turn.

    Args:
        case: the ways have been checked to give the right answers, and are warm.
        effort: bounds.

    Returns:
        A row for each way, in their order; one that was left out has no times.
    """
    rows = {
        way.key: Row(way.key, way.title, way.group, way.note, way.items or case.items) for way in case.ways
    }
    present = [way for way in case.ways if way.run is not None]
    repeats: dict[str, int] = {}
    first: dict[str, float] = {}
    for way in present:
        first[way.key] = _time(way, 1)
        if not case.once and first[way.key] < effort.batch:
            first[way.key] = min(first[way.key], _time(way, 3) / 3)  # the first call may have been cold
        repeats[way.key] = 1 if case.once else max(1, int(effort.batch / max(first[way.key], 1e-9)))
    cost = {key: seconds * repeats[key] for key, seconds in first.items()}
    slow = {key for key, seconds in cost.items() if seconds > ALONE}
    total = sum(seconds for key, seconds in cost.items() if key not in slow) or 1e-9
    rounds = max(min(effort.rounds, int(effort.seconds / total)), min(LEAST, effort.rounds))
    for key in slow:
        rows[key].rounds.append(first[key])
        rows[key].note = "; ".join(filter(None, (rows[key].note, "one round")))
    gc.collect()
    for number in range(rounds):
        shift = number % len(present)  # nobody always goes first
        for way in present[shift:] + present[:shift]:
            if way.key in slow:
                continue
            rows[way.key].rounds.append(_time(way, repeats[way.key]) / repeats[way.key])
    ours = rows[present[0].key].rounds if present else []
    for way in present:
        row = rows[way.key]
        row.median = statistics.median(row.rounds)
        row.low, row.high = quartiles(row.rounds)
        row.ratio = ratio(row.rounds, ours)
    return list(rows.values())


def ratio(over: list[float], under: list[float]) -> float:
    """The median of the ratios round by round: what slows a round down slows both."""
    return statistics.median(one / other for one, other in zip(over, under, strict=False))


def quartiles(values: list[float]) -> tuple[float, float]:
    """The spread: where the middle half of the values lies."""
    if len(values) < 3:  # noqa: PLR2004 - too few to cut into quarters
        return min(values), max(values)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def _time(way: Way, number: int) -> float:
    assert way.run is not None  # noqa: S101 - asked before
    return way.run(number)


def timed(call: Callable[[], object]) -> Callable[[int], float]:
    """Make the run of a way from a call."""

    def run(number: int) -> float:
        begin = time.perf_counter()
        for _ in range(number):
            call()
        return time.perf_counter() - begin

    return run


def prepared(prepare: Callable[[], str], call: Callable[[str], object]) -> Callable[[int], float]:
    """Make the run of a way whose work uses itself up, such as a deletion.

    Args:
        prepare: makes what is used up, and gives its name; not timed.
        call: the work.
    """

    def run(number: int) -> float:
        total = 0.0
        for _ in range(number):
            name = prepare()
            begin = time.perf_counter()
            call(name)
            total += time.perf_counter() - begin
        return total

    return run
