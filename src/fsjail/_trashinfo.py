"""The text of a ``.trashinfo`` file: FreeDesktop Trash specification 1.0, with own keys as X-Fsjail-*."""

from __future__ import annotations

import os
import re
import sys
import time
from dataclasses import dataclass, fields
from datetime import UTC, datetime

INFO = ".trashinfo"
_ENCODING = sys.getfilesystemencoding()

# What `make_info` writes for a file whose name needs no quoting; a list of 100,000 is read twice as fast.
_USUAL = re.compile(
    rb"\[Trash Info\]\nPath=[^\n]*\nDeletionDate=[^\n]*\n"
    rb"X-Fsjail-Path=([^\n\r%\0/][^\n\r%\0]*)\nX-Fsjail-Time=([0-9]{1,18}|[0-8][0-9]{18})\n"
    rb"X-Fsjail-Why=([a-z ]+)\n(?:X-Fsjail-Actor=([^\n\r%]*)\n)?X-Fsjail-Size=([0-9]{1,19})\n"
)


@dataclass(frozen=True, slots=True)
class TrashItem:
    """What was deleted or overwritten, and can be restored.

    Attributes:
        id: its name in the trash.
        path: where it was, relative to the root.
        deleted_at: when, with time zone.
        why: "deleted", "overwritten", "edited", "appended to", "moved onto", "replaced" or "damaged".
        actor: on whose behalf, where known.
        size: bytes; for a directory the sum of its files.
        kind: "file", "directory", "link" or "other".
    """

    id: str
    path: str
    deleted_at: datetime
    why: str
    actor: str | None
    size: int
    kind: str


_set_id, _set_path, _set_deleted_at, _set_why, _set_actor, _set_size, _set_kind = (
    getattr(TrashItem, field.name).__set__ for field in fields(TrashItem)
)


def make_info(item: TrashItem, real: str, now: int, staged: os.stat_result | None) -> bytes:
    """Write an info file.

    Args:
        item: what is kept.
        real: the root's real path; ``Path=`` is absolute, as the clients want it.
        now: nanoseconds since the epoch.
        staged: ``fstat`` of the content that takes its place; recovery tells by its inode which
            of the two a half-done exchange left behind.
    """
    from urllib.parse import quote_from_bytes  # noqa: PLC0415 - not needed before the first change

    def quoted(text: str) -> str:
        return quote_from_bytes(os.fsencode(text), safe="/")

    lines = [
        "[Trash Info]",
        f"Path={quoted(os.path.join(real, item.path))}",
        # Local time in whole seconds without a zone: what the specification and its clients agree on.
        time.strftime("DeletionDate=%Y-%m-%dT%H:%M:%S", time.localtime(now / 1e9)),
        f"X-Fsjail-Path={quoted(item.path)}",
        f"X-Fsjail-Time={now}",
        f"X-Fsjail-Why={item.why}",
    ]
    if item.actor is not None:
        lines.append(f"X-Fsjail-Actor={quoted(item.actor)}")
    if item.kind == "file":
        lines.append(f"X-Fsjail-Size={item.size}")
    if staged is not None:
        lines.append(f"X-Fsjail-Staged={staged.st_dev}:{staged.st_ino}")
    return ("\n".join(lines) + "\n").encode()


def parse_usual(text: bytes, identity: str) -> TrashItem | None:
    """Read the info file of a file as `make_info` writes most of them; None where `parse_info` has to."""
    found = _USUAL.match(text)
    if found is None:
        return None
    name, time_ns, why, actor, size = found.groups()
    path = name.decode(_ENCODING, "surrogateescape")
    if ".." in path and ".." in path.split("/"):
        return None
    # As __init__ does it for a frozen class, but without looking each name up again.
    item = object.__new__(TrashItem)
    _set_id(item, identity)
    _set_path(item, path)
    _set_deleted_at(item, datetime.fromtimestamp(int(time_ns) / 1e9, UTC))
    _set_why(item, why.decode("ascii"))
    _set_actor(item, None if actor is None else actor.decode(_ENCODING, "surrogateescape"))
    _set_size(item, int(size))
    _set_kind(item, "file")
    return item


def parse_info(text: bytes, identity: str, kind: str, size: int, changed: float, real: str) -> TrashItem:
    """Read an info file, also one that another trash program wrote.

    A file that cannot be read gives an item with ``why="damaged"`` and no path. A path that does
    not lie below the root is damaged too: restoring it would be a way out.
    """
    if b"\r" in text:
        text = text.replace(b"\r", b"")
    header, *lines = text.split(b"\n")
    if header.strip() != b"[Trash Info]":
        return damaged(identity, kind, size, changed)
    keys: dict[bytes, bytes] = {}
    for line in lines:
        key, equals, value = line.partition(b"=")
        if equals and key not in keys:
            keys[key] = value

    def plain(key: bytes) -> str | None:
        value = keys.get(key)
        if value is None:
            return None
        if b"%" in value:
            from urllib.parse import unquote_to_bytes  # noqa: PLC0415 - see above

            value = unquote_to_bytes(value)
        return os.fsdecode(value)

    path = plain(b"X-Fsjail-Path")
    if path is None:
        path = plain(b"Path")
        prefix = real.rstrip("/") + "/"
        if path is not None and path.startswith("/"):
            path = path[len(prefix) :] if path.startswith(prefix) else None
    if not path or "\0" in path or ".." in path.split("/") or path.startswith("/"):
        return damaged(identity, kind, size, changed)
    try:
        if b"X-Fsjail-Time" in keys:
            when = datetime.fromtimestamp(int(keys[b"X-Fsjail-Time"]) / 1e9, UTC)
        else:
            when = datetime.fromisoformat(keys[b"DeletionDate"].decode("ascii").strip()).astimezone(UTC)
    except (KeyError, ValueError, OverflowError, OSError):
        when = datetime.fromtimestamp(changed, UTC)
    why = keys.get(b"X-Fsjail-Why", b"deleted").decode("utf-8", "replace")
    return TrashItem(identity, path, when, why, plain(b"X-Fsjail-Actor"), size, kind)


def damaged(identity: str, kind: str, size: int, changed: float) -> TrashItem:
    """An item whose info file is missing or unreadable: listed, never dropped."""
    return TrashItem(identity, "", datetime.fromtimestamp(changed, UTC), "damaged", None, size, kind)
