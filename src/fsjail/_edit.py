"""Replacing text inside text, and showing what changed; pure."""

from __future__ import annotations

from itertools import islice

from fsjail._errors import JailError

_MOST_PLACES = 5


class EditError(JailError, ValueError):
    """The text to replace is missing or ambiguous; nothing was changed."""


def replace(text: str, old: str, new: str, count: int) -> str:
    """Replace exactly ``count`` places of ``old``.

    Line ends keep their kind: if ``old`` is not found as it is and the text has CRLF lines, LF in
    ``old`` and ``new`` stands for CRLF.

    Args:
        text: the whole text, with its own line ends.
        old: what to replace; not empty.
        new: what to put there.
        count: how many places there must be.

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
    return text.replace(old, new)


def unified_diff(name: str, old: str, new: str) -> str:
    """A unified diff with three lines of context; line ends inside the lines are kept as they are."""
    import difflib  # noqa: PLC0415 - 4 ms, only edits need it

    lines = difflib.unified_diff(_lines(old), _lines(new), f"a/{name}", f"b/{name}")
    open_end = "\n\\ No newline at end of file\n"
    return "".join(line if line.endswith("\n") else line + open_end for line in lines)


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
