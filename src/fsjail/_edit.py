"""Replacing text inside text, and showing what changed; pure."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from fsjail._errors import JailError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_MOST_PLACES = 5
_DIFF_LINES = 10_000
_CONTEXT = 3


class EditError(JailError, ValueError):
    """The text to replace is missing or ambiguous; nothing was changed."""


def replace(text: str, old: str, new: str, count: int, afford: Callable[[int], None]) -> str:
    """Replace exactly ``count`` places of ``old``.

    Line ends keep their kind: if ``old`` is not found as it is and the text has CRLF lines, LF in
    ``old`` and ``new`` stands for CRLF.

    Args:
        text: the whole text, with its own line ends.
        old: what to replace; not empty.
        new: what to put there.
        count: how many places there must be.
        afford: called with the number of characters of the result, before it is made; raises over a limit.

    Raises:
        EditError: ``old`` is empty, equal to ``new``, not found, or found another number of times.
    """
    if not old:
        message = "the text to replace is empty"
        raise EditError(message)
    if count < 1:
        message = f"count must be at least 1, not {count}"
        raise EditError(message)
    if "\r\n" in text and old not in text:
        old, new = _crlf(old), _crlf(new)
    elif "\r\n" in text and "\n" in new and "\r\n" not in old:
        # A line with CRLF around it must not gain bare LF lines.
        new = _crlf(new)
    found = text.count(old)
    if found == 0:
        message = "the text to replace was not found; it must match exactly, white space included"
        raise EditError(message)
    if found != count:
        more = ", …" if found > _MOST_PLACES else ""
        where = ", ".join(str(line) for line in islice(_lines_of(text, old), _MOST_PLACES)) + more
        message = (
            f"the text to replace was found {found} times (lines {where}), count is {count}; "
            "give more of the text around it, or the right count"
        )
        raise EditError(message)
    if old == new:
        message = "the old and the new text are the same"
        raise EditError(message)
    afford(len(text) + count * (len(new) - len(old)))
    return text.replace(old, new)


def unified_diff(name: str, old: str, new: str) -> str:
    """A unified diff with three lines of context; line ends inside the lines are kept as they are."""
    import difflib  # noqa: PLC0415 - 4 ms, only edits need it

    before, after = _lines(old), _lines(new)
    if len(before) + len(after) > _DIFF_LINES:
        lines: Iterable[str] = _one_hunk(name, before, after)
    else:
        lines = difflib.unified_diff(before, after, f"a/{name}", f"b/{name}")
    open_end = "\n\\ No newline at end of file\n"
    return "".join(line if line.endswith("\n") else line + open_end for line in lines)


def _one_hunk(name: str, before: list[str], after: list[str]) -> Iterator[str]:
    """From the first line that differs to the last one; difflib would take the square of their number."""
    if before == after:
        return
    top = next((n for n, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), None)
    top = min(len(before), len(after)) if top is None else top
    end, most = 0, min(len(before), len(after)) - top
    while end < most and before[-1 - end] == after[-1 - end]:
        end += 1
    first, last = max(0, top - _CONTEXT), max(0, end - _CONTEXT)
    old, new = len(before) - first - last, len(after) - first - last
    yield f"--- a/{name}\n"
    yield f"+++ b/{name}\n"
    yield f"@@ -{first + 1},{old} +{first + 1},{new} @@\n"
    yield from (f" {line}" for line in before[first:top])
    yield from (f"-{line}" for line in before[top : len(before) - end])
    yield from (f"+{line}" for line in after[top : len(after) - end])
    yield from (f" {line}" for line in before[len(before) - end : len(before) - last])


def _lines(text: str) -> list[str]:
    # Not splitlines(): a form feed or U+2028 is no line end in a source file.
    *whole, rest = text.split("\n")
    return [f"{line}\n" for line in whole] + ([rest] if rest else [])


def _crlf(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\n", "\r\n")


def _lines_of(text: str, old: str) -> list[int]:
    lines: list[int] = []
    at = text.find(old)
    while at >= 0 and len(lines) <= _MOST_PLACES:
        lines.append(text.count("\n", 0, at) + 1)
        at = text.find(old, at + len(old))
    return lines
