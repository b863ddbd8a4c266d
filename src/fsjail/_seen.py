"""What stood at a name, and a directory of names, when they were last looked at."""

from __future__ import annotations

import enum
import stat as stat_
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator


class Unseen(enum.Enum):
    """The answer of a look that says nothing, not even that nothing is there."""

    UNSEEN = enum.auto()


UNSEEN = Unseen.UNSEEN
FOUND = 1 << 20  # beside the bits of a notice: by looking, not by a notice


class Seen(NamedTuple):
    """What stood at a name; times in nanoseconds."""

    ino: int
    size: int
    mtime: int
    ctime: int
    mode: int
    links: int

    @classmethod
    def of(cls, st: os.stat_result) -> Seen:
        """Take what counts of an ``lstat``."""
        return cls(st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_mode, st.st_nlink)

    @property
    def is_dir(self) -> bool:
        return stat_.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        return stat_.S_ISLNK(self.mode)

    @property
    def is_file(self) -> bool:
        return stat_.S_ISREG(self.mode)


def alike(one: Seen | None, other: Seen | None) -> bool:
    """Whether the same thing stands there with the same content and mode; a directory's content is not it."""
    if one is None or other is None:
        return one is other
    if one.ino != other.ino or one.mode != other.mode:
        return False
    return one.is_dir or (one.size == other.size and one.mtime == other.mtime)


class Folder:
    """One directory of the tree: what is in it, and its watch."""

    __slots__ = ("folders", "key", "name", "names", "parent", "watch")

    def __init__(self, name: str, parent: Folder | None) -> None:
        self.name = name
        self.parent = parent
        self.names: dict[str, Seen] = {}
        self.folders: dict[str, Folder] = {}
        self.watch = -1
        self.key = (0, 0)  # device and inode

    def path(self, leaf: str = "") -> str:
        """Its name below the top, with one of its own names behind it."""
        parts = [leaf] if leaf else []
        here: Folder | None = self
        while here is not None and here.name:
            parts.append(here.name)
            here = here.parent
        return "/".join(reversed(parts))

    def all(self) -> Iterator[Folder]:
        """Itself and all directories beneath."""
        pending = [self]
        while pending:
            here = pending.pop()
            yield here
            pending.extend(here.folders.values())

    def below(self) -> Iterator[tuple[str, Seen]]:
        """All names beneath, relative to it."""
        pending = [("", self)]
        while pending:
            prefix, here = pending.pop()
            for name, seen in here.names.items():
                yield prefix + name, seen
            pending.extend((f"{prefix}{name}/", folder) for name, folder in here.folders.items())
