"""``fsjail trash`` and ``fsjail undo``: what was kept, and bringing it back."""

from __future__ import annotations

import errno
import gc
import sys
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from fsjail._errors import ConfigError, TrashError
from fsjail.cli import _say
from fsjail.cli._open import byte_count, jail_at, moment, settings_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsjail._trashinfo import TrashItem
    from fsjail._values import Change

_PREVIEW = 20


def item_document(item: TrashItem) -> dict[str, Any]:
    """Write a trash item for ``--json``."""
    return {
        "id": item.id,
        "path": item.path,
        "deleted_at": item.deleted_at.isoformat(),
        "why": item.why,
        "actor": item.actor,
        "bytes": item.size,
        "kind": item.kind,
    }


@cache
def _local(seconds: float) -> str:
    """Write a time of the epoch, in whole seconds, in the local zone."""
    try:
        return datetime.fromtimestamp(seconds).isoformat(" ")  # noqa: DTZ006 - local time is meant
    except (ValueError, OverflowError):  # a planted year 9999 is the year 10000 here
        return "?"


def _table(items: Sequence[TrashItem]) -> None:
    # Of 100,000 items many share their second, and their size as it is written.
    size = cache(_say.size)
    rows = [
        (
            item.id,
            _local(item.deleted_at.timestamp() // 1),
            item.why,
            item.actor or "-",
            size(item.size),
            item.path + "/" if item.kind == "directory" else item.path,
        )
        for item in items
    ]
    _say.table(("ID", "TIME", "WHY", "WHO", "SIZE", "PATH"), rows, right=(4,))


def _total(items: Sequence[TrashItem]) -> str:
    return f"{_say.number(len(items), 'item')}, {_say.size(sum(item.size for item in items))}"


def listing(root: str | None, *, as_json: bool) -> int:
    """List what can be brought back, newest first.

    Returns:
        0, also if the trash is empty.
    """
    # No cycles are made here; looking for them among 100,000 items took as long as half the listing.
    gc.disable()
    with jail_at(root) as jail:
        items = jail.trash.items()
    if as_json:
        total = sum(item.size for item in items)
        _say.emit_rows("items", (item_document(item) for item in items), bytes=total)
    elif not items:
        _say.say("The trash is empty.")
    else:
        _table(items)
        _say.say(_total(items))
    return 0


def restore(root: str | None, wanted: str, to: str | None, *, overwrite: bool, as_json: bool) -> int:
    """Bring an item back, named by its id or, the newest of that name, by its path.

    Returns:
        0.

    Raises:
        TrashError: there is no such item, or something has its name now.
    """
    with jail_at(root) as jail:
        items = jail.trash.items()
        found = next((item for item in items if item.id == wanted), None)
        found = found or next((item for item in items if item.path == wanted.rstrip("/")), None)
        if found is None:
            raise TrashError(errno.ENOENT, "the trash holds no such item; see `fsjail trash list`", wanted)
        path = jail.trash.restore(found.id, to=to, overwrite=overwrite)
    if as_json:
        _say.emit({"id": found.id, "restored": path})
    else:
        _say.say(f"Restored {_say.safe(path)}.")
    return 0


def purge(root: str | None, older: float | None, keep: str | None, *, yes: bool, as_json: bool) -> int:
    """Remove items for good, after showing them and asking.

    Args:
        root: what ``--root`` said.
        older: age in days; left out with ``keep``, what the configuration says holds.
        keep: size that may stay.
        yes: whether to remove without asking.
        as_json: whether to print a JSON document.

    Returns:
        0 if they were removed or there was nothing to remove, 1 if not.

    Raises:
        ConfigError: nobody can be asked, or nothing says what may go.
    """
    keep_bytes = byte_count(keep)
    if older is None and keep_bytes is None:
        settings = settings_at(root)
        older, keep_bytes = settings.keep_days, settings.keep_bytes
        if older is None and keep_bytes is None:
            raise ConfigError(
                "say what may go: --older-than-days N (0 for all) or --keep SIZE; "
                "or set keep_days or keep_bytes under [trash] in fsjail.toml"
            )
    if not yes and (as_json or not sys.stdin.isatty()):
        raise ConfigError("this removes for good and there is no terminal to ask on; add --yes")
    with jail_at(root) as jail:

        def chosen(*, dry_run: bool) -> list[TrashItem]:
            return jail.trash.purge(older_than_days=older, keep_bytes=keep_bytes, dry_run=dry_run)

        if not as_json:
            leaving = chosen(dry_run=True)
            _preview(leaving)
            if not leaving:
                return 0
            if not yes and not _agreed(f"Remove {_total(leaving)} for good?"):
                _say.say("Nothing was removed.")
                return 1
            # An agent may have deleted something while the question stood there.
            if not {item.id for item in chosen(dry_run=True)} <= {item.id for item in leaving}:
                _say.complain("the trash has changed meanwhile; nothing was removed, run it again")
                return 1
        removed = chosen(dry_run=False)
    if as_json:
        removed_bytes = sum(item.size for item in removed)
        _say.emit({"removed": [item_document(item) for item in removed], "bytes": removed_bytes})
    else:
        _say.say(f"Removed {_total(removed)}.")
    return 0


def _preview(leaving: Sequence[TrashItem]) -> None:
    if not leaving:
        _say.say("Nothing to remove.")
        return
    _table(leaving[:_PREVIEW])
    if len(leaving) > _PREVIEW:
        _say.say(f"... and {len(leaving) - _PREVIEW:,} more")


def _agreed(question: str) -> bool:
    """Ask on the terminal; everything but yes means no."""
    sys.stdout.flush()
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def diff(root: str | None, wanted: str, *, as_json: bool) -> int:
    """Show what changed since an item was kept.

    Returns:
        0.

    Raises:
        TrashError: there is no such item, or it is no text file.
    """
    with jail_at(root) as jail:
        text = jail.trash.diff(wanted)
    if as_json:
        _say.emit({"id": wanted, "diff": text})
        return 0
    for line in text.split("\n")[:-1]:
        _say.say(_say.safe(line))
    if not text:
        _say.say("No difference.")
    return 0


def undo(
    root: str | None, actor: str | None, since: str | None, *, dry_run: bool = False, as_json: bool
) -> int:
    """Take changes back, or with ``dry_run`` show what that would do.

    Returns:
        0.

    Raises:
        TrashError: there is nothing to take back.
    """
    start = moment(since)
    with jail_at(root) as jail:
        changes = jail.undo(actor=actor, since=start, dry_run=dry_run)
    if as_json:
        _say.emit({"changes": [_change_document(change) for change in changes]})
        return 0
    done = "Would be undone" if dry_run else "Undone"
    _say.say(f"{done} by {_say.number(len(changes), 'change')}:")
    for change in changes:
        to = "" if change.to is None else f" -> {_say.safe(change.to)}"
        _say.say(f"  {change.op:<8} {_say.safe(change.path)}{to}")
    return 0


def _change_document(change: Change) -> dict[str, Any]:
    saved = None if change.saved is None else item_document(change.saved)
    return {"op": change.op, "path": change.path, "to": change.to, "saved": saved}
