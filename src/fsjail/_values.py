"""What the calls of a jail give back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fsjail._trashinfo import TrashItem

NOTHING = -1  # Change.seq of a call that found nothing to change; never leaves the package


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a directory; what it says is of the name itself, not of a link's target.

    Attributes:
        path: relative to the root.
        name: the last component.
        kind: "file", "directory", "link" or "other".
        size: bytes.
        mtime: seconds since the epoch.
    """

    path: str
    name: str
    kind: str
    size: int
    mtime: float


@dataclass(frozen=True, slots=True)
class Hit:
    """One line that a search found.

    Attributes:
        path: the file, relative to the root.
        line: number of the line, from 1.
        column: number of the character in the line where the match begins, from 1.
        text: the line without its end; of a long one the part around the match, "…" where it is cut.
    """

    path: str
    line: int
    column: int
    text: str


@dataclass(frozen=True, slots=True)
class Change:
    """What a call changed.

    Attributes:
        op: "write", "edit", "append", "mkdir", "copy", "move", "delete" or "restore".
        path: the canonical name, relative to the root; for copy and move the source.
        to: the destination of a copy or move.
        saved: what went to the trash, if something did.
        diff: a unified diff, for an edit.
        seq: number of its record in the audit log, where there is one.
    """

    op: str
    path: str
    to: str | None = None
    saved: TrashItem | None = None
    diff: str | None = None
    seq: int | None = None
