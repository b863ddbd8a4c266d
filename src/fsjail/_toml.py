"""Where in a TOML text each key and array item stands.

The standard library's parser tells values and no places, and an error without a line sends its
reader searching. This scan runs after that parser has accepted the text, so it never judges
syntax: it only finds where statements, keys and array items begin.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right

TomlPath = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
# A multi-line string may end in up to five quotes: two of them are its own.
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:[^"\\]|\\.)*"'
    r"|'[^']*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]*")


def lines_of(text: str) -> dict[TomlPath, int]:
    """Find the line of every key, table and array item.

    Args:
        text: TOML that ``tomllib`` has accepted.

    Returns:
        The line, counted from 1, of each path such as ``("read", "deny", 0)``. A table that is
        written in several places has its first.
    """
    scan = _Scan(text.replace("\r\n", "\n"))
    scan.document()
    return scan.lines


class _Scan:
    """One pass over one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[TomlPath, int] = {}
        self._starts = [0, *(found.end() for found in re.finditer("\n", text))]
        self._last_item: dict[TomlPath, int] = {}

    def document(self) -> None:
        table: TomlPath = ()
        while self._more(_BLANK):
            if self._take("[["):
                array = self._table(self._keys())
                self.at += 2
                self._last_item[array] = self._last_item.get(array, -1) + 1
                table = (*array, self._last_item[array])
                self._note(table)
            elif self._take("["):
                table = self._table(self._keys())
                self.at += 1
            else:
                self._pair(table)

    def _more(self, between: re.Pattern[str]) -> bool:
        self.at = self._end(between)
        return self.at < len(self.text)

    def _end(self, pattern: re.Pattern[str]) -> int:
        found = pattern.match(self.text, self.at)
        return found.end() if found else len(self.text)

    def _take(self, token: str) -> bool:
        if not self.text.startswith(token, self.at):
            return False
        self.at += len(token)
        return True

    def _note(self, path: TomlPath) -> None:
        self.lines.setdefault(path, bisect_right(self._starts, self.at))

    def _table(self, keys: tuple[str, ...]) -> TomlPath:
        """Turn the name in a header into a path: below an array of tables it means the last one."""
        path: TomlPath = ()
        for key in keys:
            if path in self._last_item:
                path = (*path, self._last_item[path])
            path = (*path, key)
            self._note(path)
        return path

    def _keys(self) -> tuple[str, ...]:
        keys = []
        while self._more(_SPACE):
            start = self.at
            quoted = self.text[start] in "\"'"
            self.at = self._end(_STRING if quoted else _BARE_KEY)
            key = self.text[start : self.at]
            keys.append(str(tomllib.loads(f"key = {key}")["key"]) if quoted else key)
            self.at = self._end(_SPACE)
            if not self._take("."):
                break
        return tuple(keys)

    def _pair(self, path: TomlPath) -> None:
        start = self.at
        keys = self._keys()
        after, self.at = self.at, start
        for key in keys:
            path = (*path, key)
            self._note(path)
        self.at = after + 1  # the "="
        if self._more(_SPACE):
            self._value(path)

    def _value(self, path: TomlPath) -> None:
        if self._take("["):
            index = 0
            while self._more(_BLANK) and not self._take("]"):
                self._note((*path, index))
                self._value((*path, index))
                index += 1
                self._comma()
        elif self._take("{"):
            while self._more(_BLANK) and not self._take("}"):
                self._pair(path)
                self._comma()
        else:
            self.at = self._end(_STRING if self.text[self.at] in "\"'" else _SCALAR)

    def _comma(self) -> None:
        if self._more(_BLANK):
            self._take(",")
