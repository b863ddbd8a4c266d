"""Gitignore patterns, matched byte for byte as git matches them.

A pattern is split once into a folder part and a last segment. A `Matcher` sorts many patterns by
their literal parts, so that a name is tried only against those that could match it, and asks about
one directory at a time, so that the folder parts are matched once per directory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from operator import methodcaller
from typing import TYPE_CHECKING, Final

from fsjail._wildmatch import ANY, Segment, Token, decode, encode, tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

MAX_PATTERN_BYTES: Final = 4096


def escape(name: str) -> str:
    """Write a name as a pattern that matches this name only."""
    text = re.sub(r"([\\*?\[])", r"\\\1", name)
    if text[:1] in {"!", "#"}:
        text = "\\" + text
    return text[:-1] + "\\" + text[-1] if text[-1:] in {" ", "\t"} else text


@dataclass(frozen=True, slots=True)
class Pattern:
    """One rule.

    Attributes:
        text: the rule as it was written.
        negative: it begins with ``!``.
        dir_only: it ends with ``/`` and matches directories only.
        path: what the folder of a name must look like; None stands for any number of directories.
        base: what the last component of a name must look like.
        older: what git read into it before "a**/b" became the same as "a*/b"; more names match.
    """

    text: str
    negative: bool
    dir_only: bool
    path: tuple[Segment | None, ...]
    base: Segment
    older: tuple[Pattern, ...] = ()

    @property
    def everywhere(self) -> bool:
        """Whether the pattern looks at the last component only."""
        return self.path == (None,)

    @property
    def folder(self) -> str | None:
        """The only folder in which names match, if it is certain."""
        literals = [part.literal if part else None for part in self.path]
        known = [part for part in literals if part is not None]
        return decode(b"/".join(known)) if len(known) == len(literals) else None

    def folder_source(self) -> bytes:
        """Write the folder part as a regular expression; each component ends with ``/``."""
        runs: list[list[Segment]] = [[]]
        for part in self.path:
            if part is None:
                runs.append([])
            else:
                runs[-1].append(part)
        first, *others = (b"".join(part.source() + b"/" for part in run) for run in runs)
        out = [first]
        out.extend(b"(?>(?:[^/]*+/)*?" + run + b")" for run in others[:-1])
        if others:
            out.append(b"(?:[^/]*+/)*?" + others[-1] if others[-1] else b"(?:[^/]*+/)*+")
        return b"".join(out)

    def folded(self) -> Pattern:
        """Give the pattern that matches the folded form of every name this one matches."""
        path = tuple(part and part.folded() for part in self.path)
        return replace(self, path=path, base=self.base.folded())

    def reaches_below(self, folder: str) -> bool:
        """Tell whether a name below the folder could match.

        Args:
            folder: a canonical name, ``""`` for the root.
        """
        if self.everywhere:
            return True
        parts = (*self.path, self.base)
        states = _skip_gaps(parts, {0})
        for component in encode(folder).split(b"/") if folder else ():
            states = _skip_gaps(parts, _step(parts, states, component))
        return any(state < len(parts) for state in states)


def _skip_gaps(parts: Sequence[Segment | None], states: Iterable[int]) -> set[int]:
    found = set(states)
    # Two gaps never stand side by side (see _segments).
    return found | {state + 1 for state in found if state < len(parts) and parts[state] is None}


def _step(parts: Sequence[Segment | None], states: Iterable[int], component: bytes) -> Iterator[int]:
    for state in states:
        if state < len(parts):
            part = parts[state]
            if part is None:
                yield state
            elif re.fullmatch(part.source(), component, re.DOTALL):
                yield state + 1


@lru_cache(2048)
def parse(text: str) -> Pattern | None:
    """Read one line of a gitignore file.

    Args:
        text: the line, with or without its line end.

    Returns:
        The pattern, or None for a blank line or a comment.

    Raises:
        ValueError: the pattern can never match, or not what it seems to say; with the reason.
    """
    line = text.removesuffix("\n").removesuffix("\r")
    raw = _checked(line)
    if raw.startswith(b"#"):
        return None
    raw = _trim(raw)
    if not raw:
        return None
    if raw.endswith(b"\t") and not _escaped(raw, len(raw) - 1):
        raise ValueError("it ends with a tab; remove it, or write \\ before it if the name has one")
    negative = raw.startswith(b"!")
    return _pattern(text, raw[1:] if negative else raw, negative=negative, anchored=False)


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
        self._pattern = _pattern(text, _checked(text), negative=False, anchored=True)
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


def _checked(line: str) -> bytes:
    try:
        raw = encode(line)
    except UnicodeEncodeError:
        raise ValueError("it holds a lone surrogate, which no file name can hold") from None
    if len(raw) > MAX_PATTERN_BYTES:
        raise ValueError(f"it has {len(raw)} bytes; the limit is {MAX_PATTERN_BYTES}")
    for byte, name in ((b"\0", "a NUL"), (b"\n", "a line break")):
        if byte in raw:
            raise ValueError(f"it holds {name}; a rule is one line")
    return raw


def _escaped(raw: bytes, at: int) -> bool:
    before = raw[:at]
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 1


def _trim(raw: bytes) -> bytes:
    """Drop trailing spaces, except one that a backslash protects."""
    short = raw.rstrip(b" ")
    if len(short) < len(raw) and _escaped(raw, len(short)):
        return short + b" "
    return short


def _pattern(text: str, body: bytes, *, negative: bool, anchored: bool) -> Pattern:
    dir_only = body.endswith(b"/")
    body = body.removesuffix(b"/")
    gaps = anchored or b"/" in body
    body = body.removeprefix(b"/")
    parts = _segments(body, gaps=gaps)
    if parts == [Segment(())]:
        raise ValueError("it names nothing")
    for part in parts:
        if part is None:
            continue
        if not part.tokens:
            raise ValueError("it holds an empty segment (//), which no path has")
        if part.literal in {b".", b".."}:
            raise ValueError("no path below the root has a segment '.' or '..'; write /x for x in the root")
    pattern = _put_together(text, parts if gaps else [None, *parts], negative=negative, dir_only=dir_only)
    older = [_segments(reading, gaps=True) for reading in _older(body)] if gaps else []
    readings = [_put_together(text, reading, negative=negative, dir_only=dir_only) for reading in older]
    return replace(pattern, older=tuple(readings)) if readings else pattern


def _put_together(text: str, parts: list[Segment | None], *, negative: bool, dir_only: bool) -> Pattern:
    base = parts[-1]
    if base is None:
        return Pattern(text, negative, dir_only, tuple(parts), ANY)
    return Pattern(text, negative, dir_only, tuple(parts[:-1]), base)


# Stars behind a literal start, up to a slash or the end.
_GLUED: Final = re.compile(rb"(?P<start>[^*?\[\\]*[^*?\[\\/])\*\*+(?P<slash>\\?/|\Z)(?P<rest>.*)", re.DOTALL)


def _older(body: bytes) -> list[bytes]:
    """Give patterns for the further names that git before 2.52 matches.

    It compared the literal start first and then read the stars of ``a**/b`` as if they stood
    alone: as any number of directories.
    """
    glued = _GLUED.fullmatch(body)
    if glued is None:
        return []
    start, slash, rest = glued["start"], glued["slash"], glued["rest"]
    if not slash:
        return [start + b"*/**"]
    found = [start + b"*/**/" + rest]
    if slash == b"/":
        none = start + re.sub(rb"\A(\*\*+/)+", b"**/", rest)
        found += [none, *_older(none)]
    return found


def _segments(body: bytes, *, gaps: bool) -> list[Segment | None]:
    """Split a pattern at its slashes; None stands for a ``**`` between slashes."""
    segments: list[Segment | None] = []
    row: list[Token] = []
    stars = 0  # the length of the last run of stars
    for token, width in chain(tokens(body), [(b"/", 0)]):
        if token is None:
            stars = width
        if token != b"/":
            if isinstance(token, bytes) and row and isinstance(row[-1], bytes):
                row[-1] += token
            else:
                row.append(token)
            continue
        if not (gaps and row == [None] and stars > 1):
            segments.append(Segment(tuple(row)))
        else:
            # git lets "**/" stand for no directory at all, but not "**\/".
            if width > 1:
                segments.append(ANY)
            if not segments or segments[-1] is not None:
                segments.append(None)
        row = []
    return segments


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
