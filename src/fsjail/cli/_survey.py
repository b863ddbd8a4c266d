"""Looks at a root as its owner, and says of each name what an agent may do with it.

The owner may see everything, so the names are read from the disk directly; what is said of each
comes from the jail's own policy. Nothing is opened and no link is followed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fsjail._errors import JailError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsjail._jail import Jail

# The jail's own folder: what lies in the trash is no part of what an agent could see.
OWN = ".fsjail"


@dataclass(frozen=True, slots=True)
class Seen:
    """A name in the root and what an agent may do with it.

    Attributes:
        path: relative to the root.
        kind: "directory", "file", "link" or "other".
        read: an agent sees it and may read or list it.
        write: an agent may change, replace or delete it.
        passes: a directory that may not be read itself, but something below it may.
        depth: 0 for what lies directly in the folder where the survey began.
        last: nothing follows in its folder.
        error: why a directory could not be listed by the user who asks, else None.
    """

    path: str
    kind: str
    read: bool
    write: bool
    passes: bool
    depth: int
    last: bool
    error: str | None = None

    @property
    def mark(self) -> str:
        """``rw``, ``r-``, ``x-`` (pass through) or ``--`` (hidden)."""
        first = "r" if self.read else "x" if self.passes else "-"
        return first + ("w" if self.write else "-")


@dataclass(slots=True)
class Counts:
    """How many names an agent may read, write, or does not see.

    Attributes:
        readable: names that may be read.
        writable: names that may be changed; part of the readable ones.
        passed: directories that are only a way to what may be read.
        hidden: names that an agent does not see, with all that lies below them.
        unlisted: directories that the user who asks may not list, so nobody counted below.
    """

    readable: int = 0
    writable: int = 0
    passed: int = 0
    hidden: int = 0
    unlisted: int = 0

    def add(self, seen: Seen) -> None:
        """Count one name."""
        self.readable += seen.read
        self.writable += seen.write
        self.passed += seen.passes
        self.hidden += not (seen.read or seen.passes)
        self.unlisted += seen.error is not None


def survey(jail: Jail, start: str = ".", *, depth: int | None = None, hidden: bool = False) -> Iterator[Seen]:
    """Go through a folder, each name before what lies below it, sorted within its folder.

    Args:
        jail: the jail whose policy is asked.
        start: the canonical name of the folder to begin with.
        depth: how many levels below ``start`` to show; all if left out.
        hidden: whether to go into hidden folders too, as counting needs.

    Yields:
        Each name; one folder is held in memory at a time, on each level.
    """
    judged = _Judge(jail)
    base = str(jail.root)
    levels = [_level(judged, start, _names(base, start), 0, visible=True)]
    while levels:
        seen = next(levels[-1], None)
        if seen is None:
            levels.pop()
            continue
        visible = seen.read or seen.passes
        if (
            seen.kind == "directory"
            and seen.path != OWN
            and (visible or hidden)
            and (depth is None or seen.depth + 1 < depth)
        ):
            try:
                names = _names(base, seen.path)
            except OSError as error:
                seen = replace(seen, error=error.strerror or "cannot be listed")
            else:
                levels.append(_level(judged, seen.path, names, seen.depth + 1, visible=visible))
        yield seen


def _names(base: str, folder: str) -> list[tuple[str, str]]:
    """List one folder as sorted pairs of name and kind."""
    with os.scandir(base if folder == "." else f"{base}/{folder}") as entries:
        return sorted((entry.name, _kind(entry)) for entry in entries)


def _level(
    judged: _Judge, folder: str, names: list[tuple[str, str]], depth: int, *, visible: bool
) -> Iterator[Seen]:
    """Judge the names of one folder; in a hidden one all are hidden, whatever they are called."""
    final = len(names) - 1
    for index, (name, kind) in enumerate(names):
        full = name if folder == "." else f"{folder}/{name}"
        read, write, passes = judged(full, kind) if visible else (False, False, False)
        yield Seen(full, kind, read, write, passes, depth, index == final)


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_symlink():
            return "link"
        if entry.is_dir(follow_symlinks=False):
            return "directory"
        return "file" if entry.is_file(follow_symlinks=False) else "other"
    except OSError:
        return "other"


class _Judge:
    """Asks the policy about names; a link is asked of the jail, which knows where it leads."""

    def __init__(self, jail: Jail) -> None:
        self._jail = jail
        self._policy = jail.policy

    def __call__(self, name: str, kind: str) -> tuple[bool, bool, bool]:
        if kind == "link":
            return self._link(name)
        folder = kind == "directory"
        read = self._policy.judge("read", name, folder).allowed
        write = read and self._policy.judge("write", name, folder).allowed
        passes = folder and not read and self._policy.may_contain(name, "read")
        return read, write, passes

    def _link(self, name: str) -> tuple[bool, bool, bool]:
        ask: Callable[[str, str], object] = self._jail.check
        try:
            read = bool(ask("read", name))
            return read, read and bool(ask("write", name)), False
        except (JailError, OSError):
            # A loop, or a way that cannot be walked: the agent gets no further either.
            return False, False, False
