"""Gitignore patterns, matched byte for byte as git matches them.

A pattern is read here, and split once into a folder part and a last segment; `fsjail._matcher` asks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Final

from fsjail._wildmatch import ANY, Segment, Token, decode, encode, tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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


def parse_glob(text: str) -> Pattern:
    """Read a pattern for a search: always from the root, ``!`` and ``#`` have no meaning.

    Raises:
        ValueError: the pattern can never match; with the reason.
    """
    return _pattern(text, _checked(text), negative=False, anchored=True)


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
