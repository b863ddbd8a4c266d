"""What the commands print: safe names, one JSON document, tables, marks, progress."""

# ruff: noqa: PLC0415 - what only one command needs is imported when that command runs

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rich.status import Status

# rich needs 1 ms a row to lay out a table: above this many rows plain columns are printed.
_RICH_ROWS = 500
_SLOW_SECONDS = 1.0
_TICK = 256
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024

_COLOURS = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "dim": "2", "bold": "1"}


def safe(text: str) -> str:
    r"""Make a name or sentence safe to print.

    A file name may hold escape sequences that retitle, clear or type into a terminal, a
    newline that forges a second line, or a right-to-left override that disguises its ending.

    Args:
        text: anything that came from a disk, a log or an agent.

    Returns:
        The text with every character that is not printable written as ``\x1b``, ``\u202e``, and
        so on; a byte that is not UTF-8 is written as that byte, ``\xff``.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # noqa: PLR2004 - what surrogateescape makes of a stray byte
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")


def say(text: str = "") -> None:
    """Print one line on standard output; the text must be safe already."""
    sys.stdout.write(text + "\n")


def complain(text: str) -> None:
    """Print one line on standard error, made safe."""
    sys.stdout.flush()
    sys.stderr.write(f"fsjail: {safe(text)}\n")


def let_go() -> None:
    """Forget standard output after its reader went away; the interpreter flushes it once more."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def emit(document: dict[str, Any]) -> None:
    r"""Print one JSON document and nothing else.

    Names that are not UTF-8 keep their bytes as lone surrogates (``"\udcff"``), as
    ``os.fsdecode`` made them, so that a program can open what it reads here.

    Args:
        document: what `json` can write.
    """
    import json

    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=True) + "\n")


def emit_rows(key: str, rows: Iterable[dict[str, Any]], **rest: Any) -> None:
    """Print one JSON document that is a long list, a row on each line; read by `json` as `emit`'s are.

    Args:
        key: the name of the list.
        rows: what `json` can write; taken one at a time.
        rest: what else the document holds, behind the list.
    """
    import json

    # The encoder in C, which does not indent, is four times as fast.
    encode = json.JSONEncoder(ensure_ascii=True).encode
    sys.stdout.write(f"{{\n{encode(key)}: [")
    before = "\n"
    for row in rows:
        sys.stdout.write(before + encode(row))
        before = ",\n"
    sys.stdout.write("\n]" + "".join(f",\n{encode(name)}: {encode(rest[name])}" for name in rest) + "\n}\n")


def coloured() -> bool:
    """Tell whether colours are wanted: on a terminal, unless NO_COLOR or TERM=dumb says no."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def can_print(text: str) -> bool:
    """Tell whether standard output has these characters in its encoding."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def painter() -> Callable[[str, str], str]:
    """Give the function that colours a text, or one that leaves it as it is.

    Returns:
        A function of a colour's name and a text.
    """
    if not coloured():
        return lambda _colour, text: text
    return lambda colour, text: f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def size(count: int | None) -> str:
    """Write a number of bytes for a person: ``950 B``, ``1.5 MiB``.

    Args:
        count: bytes; None where nobody knows.
    """
    if count is None:
        return "?"
    value = float(count)
    for unit in _UNITS:
        if value < _STEP or unit == _UNITS[-1]:
            break
        value /= _STEP
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def number(count: int, one: str, many: str | None = None) -> str:
    """Write a count with its noun: ``1 file``, ``1,204 files``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, right: Iterable[int] = ()) -> None:
    """Print rows under headers; the cells are made safe here.

    On a terminal a table that folds long cells; elsewhere, and for many rows, aligned columns
    of which none is cut, so that ``grep`` and ``awk`` see whole names.

    Args:
        headers: one title for each column.
        rows: the cells.
        right: the columns that are aligned to the right, counted from 0.
    """
    lines = [tuple(headers), *map(tuple, rows)]
    # One look at each column: most have nothing to make safe, and there may be 100,000 rows.
    columns = list(zip(*lines, strict=True))
    if not all("".join(column).isprintable() for column in columns):
        columns = [tuple(map(safe, column)) for column in columns]
        lines = list(zip(*columns, strict=True))
    numbers = set(right)
    if sys.stdout.isatty() and len(rows) <= _RICH_ROWS:
        _rich_table(headers, lines[1:], numbers)
        return
    widths = [max(map(len, column)) for column in columns]
    cells = [f"%{width}s" if i in numbers else f"%-{width}s" for i, width in enumerate(widths)]
    if len(cells) - 1 not in numbers:
        cells[-1] = "%s"  # nothing is filled up at the end of a line
    line = "  ".join(cells) + "\n"
    sys.stdout.writelines(line % row for row in lines)


def _rich_table(headers: Sequence[str], rows: Sequence[Sequence[str]], numbers: set[int]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, header_style="bold" if coloured() else "")
    for index, title in enumerate(headers):
        grid.add_column(title, justify="right" if index in numbers else "left", overflow="fold")
    for row in rows:
        # Text, not str: a file named "[red]" is no markup.
        grid.add_row(*(Text(cell) for cell in row))
    Console(no_color=not coloured(), highlight=False).print(grid)


@contextmanager
def counting(what: str) -> Iterator[Callable[[], None]]:
    """Show a running count on standard error once the work has taken over a second.

    Args:
        what: what is counted, for instance ``names looked at``.

    Yields:
        A function to call for each step; it costs nothing where nobody watches.
    """
    if not sys.stderr.isatty():
        yield lambda: None
        return
    started = time.monotonic()
    count = 0
    status: Status | None = None

    def step() -> None:
        nonlocal count, status
        count += 1
        if count % _TICK or time.monotonic() - started < _SLOW_SECONDS:
            return
        text = f"{count:,} {what}"
        if status is None:
            from rich.console import Console

            status = Console(stderr=True, no_color=not coloured()).status(text)
            status.start()
        status.update(text)

    try:
        yield step
    finally:
        if status is not None:
            status.stop()
