"""Names taken apart without touching the disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Request:
    """A name as asked for, taken apart without touching the disk.

    Attributes:
        asked: the caller's own spelling.
        parts: components without "" and "."; ".." is kept, because links decide what it means.
        name: the lexically normalised name, "." for the root, None if it climbs above the root.
        passed: names of directories that a ".." leaves again; they are judged too.
        must_dir: a trailing slash, "." or "..": the name must be a directory.
        dot_end: the last component is "." or "..": a change of that name makes no sense.
        direct: no "..": the fast path may serve it.
    """

    __slots__ = ("asked", "direct", "dot_end", "must_dir", "name", "parts", "passed", "raw")

    def __init__(self, asked: str, parts: tuple[str, ...], *, must_dir: bool, dot_end: bool) -> None:
        self.asked = asked
        self.parts = parts
        self.must_dir = must_dir
        self.dot_end = dot_end
        self.direct = ".." not in parts
        self.name, self.passed = lexical((), parts)
        self.raw = os.fsencode("/".join(parts)) or b"."


def lexical(base: Sequence[str], parts: Sequence[str]) -> tuple[str | None, list[str]]:
    """Normalise components below a canonical name.

    Returns:
        the name ("." for the root, None if it climbs above it), and the names of the directories
        that a ".." leaves again.
    """
    names, passed = list(base), []
    for part in parts:
        if part != "..":
            names.append(part)
        elif names:
            passed.append("/".join(names))
            names.pop()
        else:
            return None, passed
    return "/".join(names) or ".", passed


def split(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part not in {"", "."})
