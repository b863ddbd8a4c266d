"""Asking gitignore patterns: many at once, or one for a search.

A `Matcher` sorts its patterns by their literal parts, so that a name is tried only against those that could
match it, and asks about one directory at a time, so that the folder parts are matched once per directory.
"""

from __future__ import annotations

import re
from operator import methodcaller
from typing import TYPE_CHECKING

from fsjail._gitignore import Pattern, parse_glob
from fsjail._wildmatch import Segment, Token, decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


class _Item:
    """The last segment of a pattern, made ready: its number, when it counts, how to test it."""

    __slots__ = ("above", "dir_only", "head", "inner", "literal", "number", "tail", "test", "unknown")

    def __init__(self, number: int, pattern: Pattern, unknown: bool) -> None:
        self.number = number
        self.dir_only = pattern.dir_only
        self.unknown = unknown
        self.above: Callable[[str], bool] | None = None  # the test of the folder, where one is needed
        tokens = pattern.base.tokens
        literal = pattern.base.literal
        self.literal = None if literal is None else decode(literal)
        self.head = _text(tokens[0])
        self.tail = _text(tokens[-1])
        framed = len(tokens) == 3 and tokens[0] is tokens[2] is None  # noqa: PLR2004
        self.inner = _text(tokens[1]) if framed else ""
        sure = literal is not None or self.inner or tokens == (None,)  # once found by its literal part
        self.test = None if sure else _base_test(pattern.base)


def _text(token: Token) -> str:
    """Give a literal as text if it is whole characters, else nothing."""
    if isinstance(token, bytes):
        try:
            return token.decode()
        except UnicodeDecodeError:
            pass
    return ""


def _base_test(base: Segment) -> Callable[[str], bool]:
    """Compare text where that is the same as comparing bytes, else use a regular expression."""
    tokens = base.tokens
    if tokens == (None,):
        return methodcaller("startswith", "")
    if base.literal is not None:
        return decode(base.literal).__eq__
    if len(tokens) == 2 and None in tokens:  # noqa: PLR2004
        if head := _text(tokens[0]):
            return methodcaller("startswith", head)
        if tail := _text(tokens[1]):
            return methodcaller("endswith", tail)
    return _regex(base.source())


def _regex(source: bytes) -> Callable[[str], bool]:
    """Give the test of a whole name by a regular expression, compiled when first needed."""
    match: Callable[[bytes], object] | None = None

    def test(name: str) -> bool:
        nonlocal match
        if match is None:
            match = re.compile(source, re.DOTALL).fullmatch
        return match(encode(name)) is not None

    return test


class _Index(dict[str, tuple["_Item", ...]]):
    """Items by a literal part of theirs."""

    __slots__ = ()

    def put(self, key: str, item: _Item) -> None:
        self[key] = (*self.get(key, ()), item)


class _Names:
    """Last segments, sorted by their literal parts."""

    __slots__ = (
        "_ends",
        "_exact",
        "_extensions",
        "_head",
        "_heads",
        "_inner",
        "_rest",
        "_starts",
        "_tail",
        "_tails",
        "_vague",
        "always",
    )

    def __init__(self, items: Iterable[_Item]) -> None:
        self._exact, self._extensions = _Index(), _Index()
        heads: dict[int, _Index] = {}
        tails: dict[int, _Index] = {}
        inner: list[tuple[str, _Item]] = []
        rest: list[_Item] = []
        for item in items:
            if item.literal is not None:
                self._exact.put(item.literal, item)
            elif "." in item.tail and len(item.tail) >= len(item.head):  # the longer one tells more
                self._extensions.put(item.tail[item.tail.rindex(".") :], item)
            elif item.head:
                size = _bucket(item.head)
                heads.setdefault(size, _Index()).put(item.head[:size], item)
            elif item.tail:
                size = _bucket(item.tail)
                tails.setdefault(size, _Index()).put(item.tail[-size:], item)
            elif item.inner:
                inner.append((item.inner, item))
            else:
                rest.append(item)
        self._heads = tuple(heads.items())
        self._tails = tuple(tails.items())
        # Most names begin and end like no pattern: one look-up each tells.
        ends = [*self._extensions, *(tail for index in tails.values() for tail in index)]
        self._head, self._tail = min(heads, default=0), -min(map(len, ends), default=0)
        self._starts = frozenset(head[: self._head] for index in heads.values() for head in index)
        self._ends = frozenset(end[self._tail :] for end in ends)
        self._inner = tuple(inner)
        self._rest = tuple(rest)
        self._vague = any(item.test for item in rest)
        # Numbers of the items that match every name of a file.
        self.always = tuple(item.number for item in rest if not item.test and not item.dir_only)

    def find(self, base: str) -> tuple[_Item, ...]:
        """Give the items that could match."""
        found = self._rest
        if base in self._exact:
            found += self._exact[base]
        if base[: self._head] in self._starts:
            for size, heads in self._heads:
                found += heads.get(base[:size], ())
        if base[self._tail :] in self._ends:
            found += self._extensions.get(base[base.rfind(".") :], ())
            for size, tails in self._tails:
                found += tails.get(base[-size:], ())
        for text, item in self._inner:
            if text in base:
                found += (item,)
        return found

    def doubtful(self, bases: Sequence[str]) -> Sequence[str]:
        """Choose the names for which :meth:`find` gives more than the items that match every name."""
        if self._vague:
            return bases
        if self._inner:
            joined = "/".join(bases)
            if any(text in joined for text, _ in self._inner):
                return bases
        exact, starts, ends, head, tail = self._exact, self._starts, self._ends, self._head, self._tail
        return [base for base in bases if base in exact or base[:head] in starts or base[tail:] in ends]


def _bucket(literal: str) -> int:
    # Few different lengths, so that few look-ups serve any number of patterns.
    return min(1 << (len(literal).bit_length() - 1), 16)


class Level:
    """The patterns of a matcher as they apply to the names of one directory.

    Attributes:
        always: the numbers of those that match every name of a file.
    """

    __slots__ = ("_common", "_local", "always")

    def __init__(self, common: _Names, local: _Names | None) -> None:
        """Put the patterns together that hold everywhere and those that hold here."""
        self._common = common
        self._local = local
        self.always = common.always if local is None else common.always + local.always

    def hits(self, base: str, is_dir: bool | None) -> tuple[int, ...]:
        """Give the numbers of the patterns that match a name in this directory, in no order.

        Args:
            base: the last component of the name.
            is_dir: whether it is a directory, None if that is not known.
        """
        found = self._common.find(base)
        if self._local is not None:
            found += self._local.find(base)
        if not found:
            return ()
        numbers: tuple[int, ...] = ()
        for item in found:
            if item.dir_only and not is_dir and (is_dir is False or not item.unknown):
                continue
            if item.test is None or item.test(base):
                numbers += (item.number,)
        return numbers

    def doubtful(self, bases: Sequence[str]) -> set[str]:
        """Choose the names that :meth:`hits` has to be asked about.

        Args:
            bases: the last components of the names of files.

        Returns:
            Those that a pattern could match besides the ones of ``always``.
        """
        found = set(self._common.doubtful(bases))
        if self._local is not None:
            found.update(self._local.doubtful(bases))
        return found


class Matcher:
    """Many patterns, asked at once."""

    __slots__ = ("_common", "_first", "_here", "_last", "_plain")

    def __init__(
        self,
        patterns: Sequence[Pattern | None],
        unknown: Sequence[bool] | None = None,
        more: Iterable[tuple[int, Pattern]] = (),
    ) -> None:
        """Sort the patterns.

        Args:
            patterns: the patterns; None keeps a number free.
            unknown: for each pattern, whether a directory-only one matches what may or may not be
                a directory; no for all if left out.
            more: further patterns, each with the number that it counts for.
        """
        common: list[_Item] = []
        self._here, self._first, self._last = _Index(), _Index(), _Index()
        for number, pattern in (*enumerate(patterns), *more):
            if pattern is None:
                continue
            item = _Item(number, pattern, unknown is not None and unknown[number])
            if pattern.everywhere:
                common.append(item)
                continue
            if pattern.folder is not None:
                self._here.put(pattern.folder, item)
                continue
            item.above = _regex(pattern.folder_source())
            first, last = pattern.path[0], pattern.path[-1]
            if first and first.literal:
                self._first.put(decode(first.literal), item)
            else:
                self._last.put(decode(last.literal) if last and last.literal else "", item)
        self._common = _Names(common)
        self._plain = Level(self._common, None)

    def level(self, folder: str) -> Level:
        """Give the patterns for the names of one directory.

        Args:
            folder: its canonical name, ``""`` for the root.
        """
        local = self._here.get(folder, ())
        wild = self._first.get(folder.partition("/")[0], ()) + self._last.get("", ())
        wild += self._last.get(folder.rpartition("/")[2], ()) if folder else ()
        if wild:
            path = f"{folder}/" if folder else ""
            local += tuple([item for item in wild if item.above is not None and item.above(path)])
        return Level(self._common, _Names(local)) if local else self._plain

    def last_match(self, path: str, is_dir: bool) -> int | None:
        """Give the number of the last pattern that matches this name itself.

        Args:
            path: a canonical name.
            is_dir: whether it is a directory.
        """
        folder, _, base = path.rpartition("/")
        return max(self.level(folder).hits(base, is_dir), default=None)


class Glob:
    """A pattern that is always read from the root, for searches.

    ``*.py`` is what lies in the root itself, ``**/*.py`` at every depth; otherwise the syntax is
    that of gitignore.

    Attributes:
        dir_only: it ends with ``/`` and matches directories only.
    """

    __slots__ = ("_above", "_pattern", "_test", "dir_only")

    def __init__(self, text: str) -> None:
        """Read the pattern.

        Args:
            text: the pattern; ``!`` and ``#`` have no meaning here.

        Raises:
            ValueError: the pattern can never match; with the reason.
        """
        self._pattern = parse_glob(text)
        self._above = None if self._pattern.everywhere else _regex(self._pattern.folder_source())
        self._test = _base_test(self._pattern.base)
        self.dir_only = self._pattern.dir_only

    def __call__(self, name: str, is_dir: bool) -> bool:
        """Tell whether the name matches."""
        folder, _, base = name.rpartition("/")
        test = self.inside(folder)
        return (is_dir or not self.dir_only) and test is not None and test(base)

    def inside(self, folder: str) -> Callable[[str], bool] | None:
        """Give the test for the names in one directory, by their last components.

        Args:
            folder: its name, ``""`` for the root.

        Returns:
            The test; None where no name of it matches.
        """
        here = self._above is None or self._above(f"{folder}/" if folder else "")
        return self._test if here else None

    def reaches_below(self, folder: str) -> bool:
        """Tell whether a name below the folder could match, ``""`` for the root."""
        return self._pattern.reaches_below(folder)


def compile_glob(pattern: str) -> Glob:
    """Make the test for a search: ``glob(name, is_dir)``.

    Args:
        pattern: gitignore syntax, always read from the root.

    Raises:
        ValueError: the pattern can never match; with the reason.
    """
    return Glob(pattern)
