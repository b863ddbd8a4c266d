"""What a search finds: the lines of a text that match an expression.

Regular expressions run on RE2, whose time is linear in the text: an agent's pattern cannot hang
the host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fsjail._values import Hit

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    # Gives where the next match in a block begins, from a place on; -1 if there is none.
    Find = Callable[[bytes, int], int]

# Steps of a compiled pattern: RE2 may take their product with the bytes of a block in time.
_PROGRAM = 2000
_LINE = 2000  # characters of a line that a hit shows
_PATTERN = 4096


class Lines:
    """The search for one pattern.

    Args:
        pattern: an RE2 expression, or plain text.
        ignore_case: whether case matters not.
        literal: whether it is plain text.

    Raises:
        ValueError: the pattern is too long or no RE2 expression.
    """

    def __init__(self, pattern: str, *, ignore_case: bool, literal: bool) -> None:
        if len(pattern) > _PATTERN:
            message = f"the pattern is {len(pattern)} characters long; {_PATTERN} are possible"
            raise ValueError(message)
        source = pattern.encode("utf-8", "surrogateescape")
        self._text = source if literal and not ignore_case else None
        self._find = (
            _expression(pattern, ignore_case=ignore_case, literal=literal)
            if self._text is None
            else _plain(self._text)
        )

    def misses(self, text: bytes) -> bool:
        """Tell at once that no line of a whole text matches; False says nothing."""
        if self._text is not None:
            return self._text not in text
        return b"\r" not in text and self._find(text, 0) < 0

    def hits(
        self, block: bytes, path: str, number: int, in_time: Callable[[], None]
    ) -> Generator[Hit, None, int]:
        """Find the matches in whole lines.

        Args:
            block: the lines.
            path: the file that they are of.
            number: the number of the first line.
            in_time: called between the hits; raises where a search takes too long.

        Returns:
            The number of the line behind them.
        """
        if b"\r" in block:
            block = block.replace(b"\r\n", b"\n")  # so that "$" is before CRLF too
        at = counted = 0
        while at < len(block):
            in_time()
            found = self._find(block, at)
            if found < 0:
                break
            begin = block.rfind(b"\n", 0, found) + 1
            if begin >= len(block):
                break  # "$" behind the last line end: there is no line
            end = block.find(b"\n", found)
            end = len(block) if end < 0 else end
            number += block.count(b"\n", counted, begin)
            counted = begin
            column = len(block[begin:found].decode("utf-8", "replace")) + 1
            yield Hit(path, number, column, _shown(block[begin:end], column))
            at = end + 1
        return number + block.count(b"\n", counted)


def _shown(line: bytes, column: int) -> str:
    """Decode a line; of a long one the part around the match."""
    text = line.decode("utf-8", "replace")
    if len(text) <= _LINE:
        return text
    first = max(0, min(column - 1 - _LINE // 4, len(text) - _LINE))
    cut = text[first : first + _LINE]
    return ("…" if first else "") + cut + ("…" if first + _LINE < len(text) else "")


def _plain(text: bytes) -> Find:
    if b"\n" in text:
        return lambda *_: -1  # no line holds it
    return lambda block, at: block.find(text, at)


def _expression(pattern: str, *, ignore_case: bool, literal: bool) -> Find:
    """Compile for RE2.

    Raises:
        ValueError: no such expression, or one that is too large.
    """
    import re2  # noqa: PLC0415 - 6 ms, only a search needs it

    options = re2.Options()
    options.log_errors = False
    options.literal = literal
    options.case_sensitive = not ignore_case
    # A match never goes over a line end, whatever [^x] and \s mean: else each line of a long match
    # would cost the whole text again.
    options.never_nl = True
    try:
        # (?m): ^ and $ are those of a line, since whole blocks are searched.
        source = pattern if literal else f"(?m:{pattern})"
        compiled: Any = re2.compile(source.encode("utf-8", "surrogateescape"), options)
    except re2.error as error:
        reason = error.args[0].decode("utf-8", "replace") if isinstance(error.args[0], bytes) else error
        message = f"not a regular expression in RE2 syntax (no look-around, no back-references): {reason}"
        raise ValueError(message) from None
    if compiled.programsize > _PROGRAM:
        message = f"the pattern is too large: {compiled.programsize} steps, {_PROGRAM} are possible"
        raise ValueError(message)

    def find(block: bytes, at: int) -> int:
        found = compiled.search(block, at)
        return -1 if found is None else int(found.start())

    def find_by_line(block: bytes, at: int) -> int:
        while at < len(block):
            end = block.find(b"\n", at)
            end = len(block) if end < 0 else end
            if (found := compiled.search(block[at:end])) is not None:
                return int(found.start()) + at
            at = end + 1
        return -1

    # \A and \z are the ends of the text: search line by line.
    return find_by_line if not literal and ("\\A" in pattern or "\\z" in pattern) else find
