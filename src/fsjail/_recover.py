"""Bringing things back: the trash of a jail as its owner and agent see it, and undo."""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from fsjail._edit import unified_diff
from fsjail._errors import Moved, NotRegularFile, TrashError
from fsjail._trash import Reason
from fsjail._values import Change

if TYPE_CHECKING:
    from fsjail._audit import Event
    from fsjail._jail import Jail
    from fsjail._root import Target
    from fsjail._trash import TrashStore
    from fsjail._trashinfo import TrashItem

_UNDOABLE = {"write", "append", "edit", "mkdir", "copy", "move", "delete", "restore"}


class Trash:
    """What a jail keeps of deleted and overwritten files; reached as ``jail.trash``.

    Does not stop: the owner, or a program that works outside the jail, emptying the folder.
    """

    def __init__(self, jail: Jail, store: TrashStore) -> None:
        self._jail = jail
        self._store = store

    def items(self) -> list[TrashItem]:
        """All items, newest first; one with a broken info file is there with ``why="damaged"``."""
        return self._store.items()

    def restore(self, id: str, *, to: str | None = None, overwrite: bool = False) -> str:  # noqa: A002 - the public name
        """Bring an item back to where it was, or to another name; missing parents are created.

        The name is judged as any write: an info file that somebody planted opens no way.

        Args:
            id: as in :meth:`items`.
            to: another name than its own.
            overwrite: swap with what is there now, which goes to the trash.

        Returns:
            the name, relative to the root.

        Raises:
            TrashError: there is no such item, or it is damaged and needs ``to``.
            FileExistsError: the name is taken and ``overwrite`` is false.
            PolicyDenied: the name, or one beneath, may not be written.
        """
        return self.give_back(id, to=to, overwrite=overwrite).path

    def give_back(
        self,
        identity: str,
        *,
        to: str | None = None,
        overwrite: bool = False,
        extra: dict[str, Any] | None = None,
    ) -> Change:
        """Restore, for callers that want the change and add facts for the log."""
        jail, store = self._jail, self._store
        item = self._item(identity)
        path = item.path if to is None else to
        if to is None and not path:
            raise TrashError(errno.EINVAL, "the item's info file is damaged; name a place with to=", identity)

        def act(target: Target) -> Change:
            # Judged like a move: what was kept under a looser policy must not come back readable.
            if item.path:
                jail._judge.old_name(item.path, item.kind)
            if item.kind == "directory":
                jail._judge.tree("write", store.names_below(identity), {0: target.name}, target.name)
                if item.path:
                    jail._judge.tree("read", store.names_below(identity), {0: item.path}, target.name)
            reason = Reason(target.name, "replaced", jail.actor)
            try:
                if target.st is None:
                    store.give_back(identity, target)
                    return Change("restore", target.name)
                if not overwrite:
                    raise FileExistsError(errno.EEXIST, "the name is taken; restore with to= or overwrite")
                jail._judge_tree("delete", target, None)
                return Change("restore", target.name, saved=store.swap(identity, target, reason))
            except FileExistsError:
                if target.st is None:
                    raise Moved from None
                raise

        if jail.check("write", path):
            jail._make_parents(path)
        facts = {"restored": identity, **(extra or {})}
        return jail._mediate("restore", path, act, judged="write", follow=False, extra=facts)

    def _item(self, identity: str) -> TrashItem:
        try:
            return self._store.item(identity)
        except (FileNotFoundError, UnicodeEncodeError):
            raise TrashError(
                errno.ENOENT, f"the trash holds no item {identity!r}; trash.items() lists them", identity
            ) from None

    def purge(
        self,
        *,
        older_than_days: float | None = None,
        keep_bytes: int | None = None,
        dry_run: bool = False,
    ) -> list[TrashItem]:
        """Remove items for good: those older than so many days, and the oldest over so many bytes.

        Args:
            older_than_days: age; 0 removes all.
            keep_bytes: how much may stay, newest first.
            dry_run: only say what would be removed.

        Returns:
            what was removed.
        """
        items, gone, kept = self.items(), [], 0
        limit = None if older_than_days is None else datetime.now(UTC) - timedelta(days=older_than_days)
        for item in items:
            old = limit is not None and item.deleted_at <= limit
            if not old and keep_bytes is not None and kept + item.size > keep_bytes:
                old = True
            if old:
                gone.append(item)
            else:
                kept += item.size
        if not dry_run:
            for item in gone:
                mark = self._jail._under_way.begin()
                try:
                    self._store.purge(item.id)
                    self._jail.record("purge", item.path, decision="allow", why="allowed", trash_id=item.id)
                finally:
                    self._jail._under_way.end(mark)
        return gone

    def diff(self, id: str) -> str:  # noqa: A002 - as restore
        """A unified diff from an item to what has its name now; empty if they are the same.

        Raises:
            TrashError: there is no such item, or it is no text file.
            PolicyDenied: its name may not be read.
        """
        jail, item = self._jail, self._item(id)
        if item.kind != "file" or not item.path:
            raise TrashError(errno.EINVAL, "only an undamaged text file can be compared", id)
        try:
            now = jail.read_text(item.path)
        except FileNotFoundError:
            jail._judge.old_name(item.path, item.kind)
            now = ""
        except (UnicodeDecodeError, NotADirectoryError, IsADirectoryError, NotRegularFile):
            raise TrashError(errno.EINVAL, "what is there now is no text file", id) from None
        try:
            return unified_diff(item.path, self._store.read(id, jail.limits.max_read_bytes).decode(), now)
        except UnicodeDecodeError:
            raise TrashError(errno.EINVAL, "it is no text file", id) from None

    def recover(self) -> list[str]:
        """Bring the folder in order after a crash; also done by the first change of a jail.

        Returns:
            a sentence for each thing that was done.
        """
        return self._store.recover()


def undo(
    jail: Jail,
    change: Change | None,
    *,
    actor: str | None,
    since: datetime | str | float | None,
    dry_run: bool,
) -> list[Change]:
    """Take changes back, newest first; see ``Jail.undo``."""
    events = _changes(jail)
    undone: set[int] = set()
    for event in reversed(events):  # an undo that was undone itself does not count
        if event.seq not in undone and event.extra and "undoes" in event.extra:
            undone.add(event.extra["undoes"])
    if change is not None:
        if change.op not in _UNDOABLE:
            raise TrashError(errno.EINVAL, f"a {change.op} cannot be undone")
        if change.seq in undone:
            raise TrashError(errno.EALREADY, "it has been undone already")
        chosen = [_Done.of_change(change)]
    else:
        chosen = [_Done.of_event(event) for event in _choose(jail, events, undone, actor, since)]
    _demand_kept(jail, events, chosen)
    result: list[Change] = []
    for done in reversed(chosen):
        # Each undo of this run moves contents too.
        now = replace(done, saved=_now(_kept_now(events), done.saved))
        if dry_run:
            result += _planned(now)
        else:
            result += _undo_one(jail, now)
            events = _changes(jail)
    return result


def _changes(jail: Jail) -> list[Event]:
    try:
        log = list(jail.audit.events())
    except OSError as error:
        # Its own text names the log's folder, which is a path of the host.
        raise TrashError(error.errno or errno.EIO, "the log cannot be read, so nothing was undone") from None
    # What a guard saw go around the jail was never saved: nothing here could take it back.
    return [e for e in log if e.decision == "allow" and e.op in _UNDOABLE and e.layer == "jail"]


def _choose(
    jail: Jail,
    events: list[Event],
    undone: set[int],
    actor: str | None,
    since: datetime | str | float | None,
) -> list[Event]:
    """The changes to take back: the last one, or all of an actor or since a time; no undos."""
    left = [e for e in events if e.seq not in undone and not (e.extra and "undoes" in e.extra)]
    if actor is not None:
        left = [event for event in left if event.actor.get("name") == actor]
    if since is not None:
        recent = {event.seq for event in jail.audit.events(since=since)}
        left = [event for event in left if event.seq in recent]
    if not left:
        raise TrashError(errno.ENOENT, "there is nothing to undo")
    return left[-1:] if actor is None and since is None else left


@dataclass(frozen=True, slots=True)
class _Done:
    """One change of the past: what it did, where, and what it saved."""

    op: str
    path: str
    to: str | None
    saved: str | None
    seq: int | None

    @classmethod
    def of_change(cls, change: Change) -> _Done:
        saved = None if change.saved is None else change.saved.id
        return cls(change.op, change.path, change.to, saved, change.seq)

    @classmethod
    def of_event(cls, event: Event) -> _Done:
        return cls(event.op, event.path, event.to, event.trash_id, event.seq)

    @property
    def place(self) -> str:
        """The name that the change gave content to."""
        return self.to if self.op == "copy" and self.to is not None else self.path


def _kept_now(events: list[Event]) -> dict[str, str]:
    """Under which id the trash holds now what it held under another, where a restore was undone since."""
    restored = {event.seq: event.extra.get("restored") for event in events if event.extra}
    return {
        was: event.trash_id
        for event in events
        if event.trash_id is not None
        and event.extra
        and (was := restored.get(event.extra.get("undoes", -1))) is not None
    }


def _now(kept: dict[str, str], identity: str | None) -> str | None:
    while identity in kept:
        identity = kept[identity]
    return identity


def _demand_kept(jail: Jail, events: list[Event], chosen: list[_Done]) -> None:
    """Look whether all that is needed is still in the trash, before the first step."""
    kept = _kept_now(events)
    seqs = {done.seq for done in chosen}
    # What one of these changes took out of the trash comes back there on the way.
    returning = {event.extra.get("restored") for event in events if event.extra and event.seq in seqs}
    for done in chosen:
        needed = done.saved
        while needed in kept and needed not in returning:
            needed = kept[needed]
        if needed is not None and needed not in returning and not jail._store.has(needed):
            raise TrashError(
                errno.ENOENT,
                f"the trash no longer holds what the {done.op} saved (item {needed}); nothing was undone",
                done.place,
            )


def _planned(done: _Done) -> list[Change]:
    """What taking a change back will do, without doing it."""
    if done.op == "move":
        back = Change("move", done.to or "", done.path)
        return [back, Change("restore", done.to or "")] if done.saved else [back]
    return [Change("restore" if done.saved or done.op == "delete" else "delete", done.place)]


def _undo_one(jail: Jail, done: _Done) -> list[Change]:
    extra = {} if done.seq is None else {"undoes": done.seq}
    if done.op == "delete":
        if done.saved is None:
            raise TrashError(errno.ENOENT, "nothing was saved of it", done.path)
        return [jail.trash.give_back(done.saved, to=done.path, extra=extra)]
    if done.op == "move":
        back = jail._move(done.to or "", done.path, overwrite=False, extra=extra)
        return [back, jail.trash.give_back(done.saved, to=done.to, extra=extra)] if done.saved else [back]
    if done.saved is not None:
        return [jail.trash.give_back(done.saved, to=done.place, overwrite=True, extra=extra)]
    try:
        return [jail._delete(done.place, extra=extra)]
    except FileNotFoundError:
        return []  # what was created is gone already
