"""``fsjail log --summary``: how often, by which rule, on what, by whom, when."""

# ruff: noqa: PLC0415 - what only one command needs is imported when that command runs

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from fsjail.cli import _say
from fsjail.cli._ask import place

if TYPE_CHECKING:
    from collections.abc import Collection

    from rich.console import Console

    from fsjail._record import Event

_MOST = 20_000  # different names that are counted; a log may hold millions
_SPANS = (1, 5, 15, 60, 300, 900, 3600, 10_800, 21_600, 86_400, 604_800, 2_419_200)  # each divides the next
_BUCKETS, _BARS = 1000, 16  # how many spans are kept apart while counting, and how many are drawn
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NARROW = 40  # columns below which there is no room for bars
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_WORDS = {"allow": "allowed", "deny": "denied", "error": "failed"}


class Tally(dict[str, int]):
    """Counts by name, in bounded memory: when there are too many names, the rarest are lumped together."""

    def __init__(self) -> None:
        super().__init__()
        self.rest = 0

    def add(self, name: str, count: int) -> None:
        """Count a name."""
        self[name] = self.get(name, 0) + count
        if len(self) > _MOST:
            kept = self.top(_MOST // 2)
            total = sum(self.values())
            self.clear()
            self.update(kept)
            self.rest += total - sum(self.values())

    def top(self, rows: int) -> list[tuple[str, int]]:
        """Give the most frequent names; 0 for all."""
        found = sorted(self.items(), key=lambda item: (-item[1], item[0]))
        return found[:rows] if rows else found


class Times:
    """Counts over time, in bounded memory: when there are too many spans, they become longer."""

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self._span = 0
        offset = datetime.now().astimezone().utcoffset() or timedelta()
        self._offset = int(offset.total_seconds())  # days begin at midnight here

    @property
    def seconds(self) -> int:
        """How long a span is."""
        return _SPANS[self._span]

    def add(self, moment: datetime, count: int) -> None:
        """Count a moment."""
        at = int((moment - _EPOCH).total_seconds()) + self._offset
        key = at // self.seconds
        self.counts[key] = self.counts.get(key, 0) + count
        if len(self.counts) > _BUCKETS:
            self._widen()

    def _widen(self) -> bool:
        if self._span + 1 == len(_SPANS):
            return False
        factor = _SPANS[self._span + 1] // self.seconds
        self._span += 1
        wider: dict[int, int] = {}
        for key, count in self.counts.items():
            wider[key // factor] = wider.get(key // factor, 0) + count
        self.counts = wider
        return True

    def bars(self) -> list[tuple[datetime, int]]:
        """Give the beginning of each span and its count, without gaps if they are few enough to be drawn."""
        while self.counts and max(self.counts) - min(self.counts) >= _BARS and self._widen():
            pass
        if not self.counts:
            return []
        keys = sorted(self.counts)
        if keys[-1] - keys[0] < _BARS:
            keys = list(range(keys[0], keys[-1] + 1))
        return [
            (
                (_EPOCH + timedelta(seconds=key * self.seconds - self._offset)).astimezone(),
                self.counts.get(key, 0),
            )
            for key in keys
        ]


class Summary:
    """What a log holds, counted."""

    def __init__(self, decisions: Collection[str]) -> None:
        """Begin with nothing.

        Args:
            decisions: what is counted by rule, path, actor and time.
        """
        self._kinds = tuple(dict.fromkeys(decisions))
        self._records = 0
        self._totals = dict.fromkeys(_WORDS, 0)
        self._first = self._last = ""
        self._tallies = {"rule": Tally(), "path": Tally(), "actor": Tally()}
        self._times = Times()

    def add(self, event: Event) -> None:
        """Count an event, with what it stands for."""
        given: Any = event.count  # a forged record may hold anything
        count = given if isinstance(given, int) else 1
        self._records += 1
        self._first = self._first or event.time
        self._last = event.time
        self._totals[event.decision] = self._totals.get(event.decision, 0) + count
        if event.decision not in self._kinds:
            return
        label = event.why.partition(" on ")[0]
        self._tallies["rule"].add(f"{label}: {place(event.rule)}" if event.rule else label, count)
        self._tallies["path"].add(event.path, count)
        self._tallies["actor"].add(str(event.actor.get("name") or "-"), count)
        try:
            self._times.add(datetime.fromisoformat(event.time), count)
        except (ValueError, TypeError, OverflowError):
            return  # a forged record; verify tells

    def document(self, rows: int) -> dict[str, Any]:
        """Write what was counted for ``--json``."""
        return {
            "records": self._records,
            "first": self._first or None,
            "last": self._last or None,
            "attempts": {_WORDS.get(kind, kind): count for kind, count in self._totals.items()},
            "counted": [_WORDS.get(kind, kind) for kind in self._kinds],
            **{
                f"by_{name}": [{name: key, "count": count} for key, count in tally.top(rows)]
                for name, tally in self._tallies.items()
            },
            "over_time": [
                {
                    "from": start.astimezone(UTC).isoformat().replace("+00:00", "Z"),
                    "seconds": self._times.seconds,
                    "count": count,
                }
                for start, count in self._times.bars()
            ],
        }

    def draw(self, rows: int) -> None:
        """Print what was counted: with bars on a terminal, as plain columns elsewhere."""
        what = " and ".join(_WORDS.get(kind, kind) for kind in self._kinds)
        if not self._records:
            _say.say("No such events.")
            return
        console = _console()
        totals = ", ".join(
            f"{_WORDS.get(kind, _say.safe(kind))} {n:,}" for kind, n in self._totals.items() if n
        )
        _say.say(f"{_say.number(self._records, 'record')}: {totals}")
        _say.say(f"{_say.safe(_minute(self._first))} to {_say.safe(_minute(self._last))}")
        if not self._tallies["rule"]:
            _say.say(f"Nothing was {what}.")
            return
        for name, title in (("rule", "rule"), ("path", "path"), ("actor", "agent")):
            tally = self._tallies[name]
            shown = tally.top(rows)
            more = len(tally) - len(shown)
            left = tally.rest + sum(tally.values()) - sum(count for _name, count in shown)
            note = f"{_say.number(more, 'more', 'more')}: {left:,}" if left else ""
            _chart(console, f"{what} by {title}".capitalize(), shown, note)
        bars = self._times.bars()
        style = "%Y-%m-%d" if self._times.seconds >= _SPANS[9] else "%Y-%m-%d %H:%M"
        style += ":%S" if self._times.seconds < _SPANS[3] else ""
        _chart(console, f"{what} over time".capitalize(), [(t.strftime(style), n) for t, n in bars], "")


def _minute(moment: str) -> str:
    try:
        return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError):
        return moment


def _console() -> Console | None:
    """Give rich's console on a terminal; None where the output goes to a file or a program."""
    if not sys.stdout.isatty():
        return None
    from rich.console import Console

    return Console(no_color=not _say.coloured(), highlight=False)


def _chart(console: Console | None, title: str, rows: list[tuple[str, int]], note: str) -> None:
    clean = [(_say.safe(label), count) for label, count in rows]
    digits = max([len(f"{count:,}") for _label, count in clean], default=1)
    _say.say()
    if console is None:
        _say.say(title)
        for label, count in clean:
            _say.say(f"  {count:>{digits},}  {label}")
        if note:
            _say.say(f"  {note}")
        return
    from rich.table import Table
    from rich.text import Text

    sys.stdout.flush()
    room = console.width - digits - 6
    longest = max([len(label) for label, _count in clean], default=1)
    bar = min(40, max(8, room - longest), room // 2) if console.width >= _NARROW else 0
    most = max([count for _label, count in clean], default=1) or 1
    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    # Text, not str: a file named "[red]" is no markup.
    grid.add_column(max_width=max(4, room - bar), overflow="fold")
    grid.add_column(width=bar or 1, no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    for label, count in clean:
        drawn = Text(_bar(count / most, bar), style="red" if _say.coloured() else "")
        grid.add_row(Text(label), drawn, Text(f"{count:,}"))
    if note:
        grid.add_row(Text(note, style="dim" if _say.coloured() else ""), "", "")
    console.print(Text(title, style="bold" if _say.coloured() else ""))
    console.print(grid)


def _bar(part: float, width: int) -> str:
    """Draw a bar, exact to an eighth of a column where the output has the characters."""
    if not _say.can_print(_EIGHTHS):
        return "#" * max(round(part * width), 1 if part else 0)
    eighths = max(round(part * width * 8), 1 if part else 0) if width else 0
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (_EIGHTHS[rest] if rest else "")
