"""One run of a watch: from the first look at the tree until it is stopped. Not for several threads."""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fsjail._doubts import Doubts
from fsjail._home import HOME
from fsjail._kinds import Kinds
from fsjail._ledger import Ledger
from fsjail._selftest import DIRECTORY
from fsjail._trashwatch import TrashWatch
from fsjail._tree import Tree
from fsjail._tripwires import Tripwires
from fsjail._underway import UnderWay
from fsjail._watched import (
    BOUND,
    CANARY_SECONDS,
    DELETED,
    META,
    MOVED_FROM,
    MOVED_TO,
    SELF,
    Reader,
    mounts,
    no_notices,
    open_reader,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsjail._alarm import Alarms
    from fsjail._ledger import Page
    from fsjail._policy import Policy
    from fsjail._root import Root
    from fsjail._watched import Notice

_TICK_SECONDS = 1.0
_LAST_SECONDS = 5.0  # at the end, for what a jail has under way
_SOON, _LATER = 0.001, 0.01  # seconds between two looks at what is in doubt
_SHARE = 100  # looking at the whole tree again and again takes a hundredth of the time,
_OFTEN, _SELDOM = 1.0, 60.0  # but these are the bounds, in seconds
_PAUSE = 5  # after an overflow the next look waits as many times as the last one took
_FORGET_SECONDS = 10.0
_BLIND_NS = 1_000_000_000  # how late a notice may come, where nobody can tell


class Patrol:
    """Watches a root, its trash and the tripwires.

    Args:
        root: held open, and stays so.
        policy: the rules.
        log: the folder of the audit log.
        trash: the folder of the trash, if it is not in the root.
        alarms: where findings go.
        tripwires: absolute paths.
        unexplained: whether every change that no record explains is told.
        polling: True never asks for notices, False never does without.
        bound: how many notices may wait.

    Raises:
        OSError: the root cannot be listed; or there are no notices here and ``polling`` is False.
    """

    def __init__(
        self,
        root: Root,
        policy: Policy,
        alarms: Alarms,
        *,
        log: str,
        trash: str | None = None,
        tripwires: Sequence[str] = (),
        unexplained: bool = True,
        polling: bool | None = None,
        bound: int = BOUND,
    ) -> None:
        self._root = root
        self._log = log
        self._location = trash
        self._alarms = alarms
        self._unexplained = unexplained
        self.reader: Reader | None = None
        self._under_way = UnderWay(log)
        self._tick = self._look_at = self._looked_at = self._look_took = 0.0
        self._lost = self._moving = False
        self._wait = _SOON
        self._told: dict[str, set[str]] = {}
        try:
            if not self._under_way.offer():
                self._say("blind", "log", "what a jail has under way; the log's folder cannot be used")
            self.reader, reason = open_reader(root, bound, polling=polling)
            self.polling = reason is not None
            # On a network file system the times are another machine's.
            self._ledger = Ledger(log, clock=no_notices(root.fd) is None)
            self._ledger.begin()
            self._rung: tuple[int, Page] | None = None  # when we last rang the bell, unless it was heard
            with suppress(OSError):
                if self.reader is not None:
                    self.reader.hang_bell(log)
            reason = self._fill(polling, reason)
            self._trash = TrashWatch(self._open_items, self.reader, self._ledger)
            self._trash.attach(first=True)
            self._doubts = Doubts(self._tree, self._ledger, self._under_way)
            if self.reader is None or self.reader.bell < 0:
                self._doubts.caught = None
            self._kinds = Kinds(root, policy, alarms, self._tree, self._trash, unexplained=unexplained)
            st = os.fstat(root.fd)
            self._wires = Tripwires(tripwires, self.reader, self._skipped | {(st.st_dev, st.st_ino)})
            self._root_was = self._root_now()
            if reason is not None:
                self._say("polling", "poll", reason)
            self._remote = [] if self.polling else self._mounted()
            for place in self._remote:
                self._say("polling", "poll", "a mount beneath, which others change unseen", place)
            self._aloud()
        except BaseException:
            self.close()
            raise

    def _mute(self) -> None:
        if self.reader is not None:
            self.reader.close()
            self.reader = None

    def _fill(self, polling: bool | None, reason: str | None) -> str | None:
        """Take the first look at the tree; gives the reason to poll, if there is one."""
        folders = [self._log, *([self._location] if self._location else [])]
        skipped = set()
        for folder in folders:
            with suppress(OSError):
                st = os.stat(folder)
                skipped.add((st.st_dev, st.st_ino))
        self._skipped = frozenset(skipped)
        below = [os.path.relpath(os.path.realpath(folder), self._root.real) for folder in folders]
        own = {name for name in below if name != ".." and not name.startswith("../")}
        self._own = frozenset(own if self._location else {*own, HOME})
        self._tree = Tree(self._root, self.reader, self._skipped, self._own)
        began = time.monotonic()
        try:
            self._tree.fill()
        except OSError as error:
            if error.errno != errno.ENOSPC or self.reader is None or polling is False:
                raise
            self._mute()
            self.polling, reason = True, "the limit of watches (fs.inotify.max_user_watches) is reached"
            self._tree = Tree(self._root, None, self._skipped, self._own)
            self._tree.fill()
        self._looked(began)
        return reason

    def _open_items(self) -> int:
        if self._location is None:
            return self._root.open_directory(f"{HOME}/Trash/files")
        return os.open(os.path.join(self._location, "Trash", "files"), DIRECTORY)

    def _mounted(self) -> list[str]:
        """Names beneath the root where something is mounted that others change unseen."""
        try:
            places = [os.fsdecode(place) for _, place, _ in mounts()]
        except OSError:
            return []
        top = self._root.real.rstrip("/") + "/"
        return [place.removeprefix(top) for place in places if place.startswith(top)]

    # ── one turn ───────────────────────────────────────────────────────────────────────────────

    def turn(self) -> None:
        """Take what has come, look, and tell."""
        if self.reader is not None:
            notices = self.reader.take()
            if self.reader.lost():
                self._lost_some("overflow", "more happened at once than the system keeps")
            for notice in notices:
                self._heard(notice)
        now = time.monotonic()
        tick = now - self._tick >= _TICK_SECONDS
        if tick:
            self._tick = now
            self._under_way.offer()  # somebody may have removed the log's folder
            self._trash.attach()
            self._check_root()
        if (self._looking or self._lost) and now >= self._look_at:
            self._look()
        self._settle(tick=tick)
        self._aloud()

    def finish(self) -> None:
        """Take in what happened until now, and tell all that is certain."""
        if self.reader is not None:
            self._catch_up()
        self._look_at = 0.0  # what is still to be looked at is looked at now
        end = time.monotonic() + _LAST_SECONDS
        while True:
            self.turn()
            if not (self._doubts or self._trash.in_doubt) or time.monotonic() > end:
                break
            time.sleep(_SOON)
        self._settle(tick=True)
        self._alarms.flush(all_of_them=True)

    def wait(self) -> None:
        """Wait for the next notice, or until something is to be done."""
        busy = bool(self._doubts) or self._trash.in_doubt or self._moving
        self._wait = min(_LATER, self._wait * 1.5) if busy else _SOON
        seconds = self._wait if busy else self._tick + _TICK_SECONDS - time.monotonic()
        if self._looking or self._lost:
            seconds = min(seconds, self._look_at - time.monotonic())
        if self.reader is not None:
            self.reader.wait(max(0.0, seconds))
        else:
            time.sleep(max(0.0, min(seconds, 0.1)))

    @property
    def _looking(self) -> bool:
        """Whether the whole tree has to be looked at again and again."""
        return self.polling or bool(self._tree.unwatched or self._remote)

    def _heard(self, notice: Notice) -> None:
        if self.reader is not None and notice.watch == self.reader.bell:
            if self._rung is not None:
                self._doubts.caught, page = self._rung
                page.until, self._rung = notice.at, None
            return
        if notice.watch == self._trash.watch:
            if notice.mask & MOVED_TO:
                self._tree.moved_out(notice.cookie)
            self._trash.heard(notice)
            return
        folder = self._tree.by_watch.get(notice.watch)
        if folder is self._tree.top and notice.mask & (MOVED_FROM | DELETED) and notice.name == HOME.encode():
            if HOME in self._own:
                self._alarms.tell("trash", "delete", HOME)
            self._trash.close()
        if folder is self._tree.top and not notice.name and notice.mask & (META | SELF):
            self._tick = 0.0
        self._doubts.heard = notice.at
        self._tree.heard(notice, self._doubts.tell)
        for before, moved in self._tree.moved:
            if self._doubts.below(before):  # what was seen under the name before is gone from there
                self._tree.recheck(moved, self._doubts.tell)
        self._tree.moved.clear()
        self._wires.heard(notice)

    def _settle(self, *, tick: bool) -> None:
        self._moving = self._tree.settle_moves(time.monotonic_ns())
        self._kinds.tell(self._doubts.settle(must=self._trash.in_doubt))
        if self._doubts.wants_bell or self._ledger.page.ends:
            self._ring()
        for op, identity in self._trash.settle(self._doubts.certain):
            self._alarms.tell("trash", op, f"{HOME}/Trash/files/{identity}", trash_id=identity)
        for one in self._wires.check(everything=tick):
            extra: dict[str, Any] = {"tripwire": one.wire}
            self._alarms.tell(
                "tripwire", one.op, one.path, extra={**extra, "passing": True} if one.passing else extra
            )
        self._alarms.flush()
        if not self._doubts and (self.reader is None or self.reader.empty):
            self._tree.carried.clear()
            wide = 3 * max(0.0, self._look_at - time.monotonic()) if self._looking else 0.0
            self._ledger.forget(_FORGET_SECONDS + wide)

    def _ring(self) -> bool:
        """Ring the bell: when it is heard, the notices of all that was done until now are taken in.

        No record that was read before can explain a later one.
        """
        if self.reader is None:
            return False
        now = time.monotonic_ns()
        if self.reader.ring():
            self._rung = now, self._ledger.turn()
            return True
        if self.reader.bell < 0:
            self._ledger.turn().until = now + _BLIND_NS
        return False

    def _look(self) -> None:
        """Look at the whole tree again."""
        self._lost = False
        began = time.monotonic()
        self._doubts.heard = None
        self._tree.rescan(self._doubts.tell)
        self._tree.shaken = False
        if self.polling or self._trash.watch < 0:
            self._trash.poll()
        self._looked(began)

    def _looked(self, began: float) -> None:
        self._looked_at = time.monotonic()
        self._look_took = self._looked_at - began
        self._look_at = self._looked_at + min(_SELDOM, max(_OFTEN, _SHARE * self._look_took))

    def _lost_some(self, op: str, reason: str) -> None:
        """Say that notices are lost, and look at everything soon."""
        if not self._lost:
            self._say("gap", op, reason)
            self._lost = self._tree.shaken = True
        # A flood must not make us do nothing but look.
        self._look_at = min(self._look_at, self._looked_at + _PAUSE * self._look_took)

    def _catch_up(self) -> None:
        """Wait until everything up to now has been read."""
        reader, end = self.reader, time.monotonic() + CANARY_SECONDS
        assert reader is not None  # noqa: S101 - asked by the caller
        while not self._ring() and reader.bell >= 0 and time.monotonic() < end:
            self.turn()
            time.sleep(_SOON)
        reader.hears(reader.bell, CANARY_SECONDS if reader.bell >= 0 else _LATER)

    # ── telling ────────────────────────────────────────────────────────────────────────────────

    def _root_now(self) -> tuple[str, int]:
        st = os.fstat(self._root.fd)
        try:
            path = os.stat(self._root.real, follow_symlinks=False)
        except OSError:
            return "delete" if not st.st_nlink else "move", st.st_mode
        same = (path.st_dev, path.st_ino) == (st.st_dev, st.st_ino)
        return "" if same else "replace", st.st_mode

    def _check_root(self) -> None:
        """Tell if the root's path leads elsewhere now; the jail and the watch hold on to the directory."""
        was, self._root_was = self._root_was, self._root_now()
        if self._root_was[0] != was[0]:
            self._alarms.tell("root", self._root_was[0] or "return", ".")
        if self._root_was[1] != was[1] and self._unexplained:
            self._alarms.tell("unexplained", "attributes", ".")

    def _aloud(self) -> None:
        """Say, once each, what cannot be seen."""
        unwatched = self._news("unwatched", self._tree.unwatched)
        if unwatched:
            reason = "no watch is left (fs.inotify.max_user_watches); looked at now and then instead"
            self._say("gap", "limit", reason, min(unwatched), folders=len(unwatched))
            self._look_at = min(self._look_at, time.monotonic() + _OFTEN)
        blind = self._news("blind", self._tree.blind)
        if blind:
            self._say("blind", "list", "the folder cannot be listed", min(blind), folders=len(blind))
        for wire in self._news("wire", set(self._wires.blind)):
            self._say("blind", "tripwire", self._wires.blind[wire], wire)
        if self._ledger.problem is not None and self._news("log", {""}):
            self._say("blind", "log", f"the log cannot be read: {self._ledger.problem}")
        if self.reader is not None and not self.reader.alive and self._news("reader", {""}):
            self._say("gap", "reader", "notices come no more; looked at now and then instead")
            self.polling, self._doubts.caught = True, None

    def _news(self, what: str, names: set[str]) -> set[str]:
        """Those that were not told yet."""
        if not names:
            return names
        told = self._told.setdefault(what, set())
        news = names - told
        told |= news
        return news

    def _say(self, kind: str, op: str, reason: str, path: str = ".", **facts: int) -> None:
        self._alarms.tell(kind, op, path, extra={"reason": reason, **facts})

    def failed(self, error: Exception, *, ends: bool = False) -> None:
        """Say that the watch itself has failed, and look at everything if it goes on."""
        import logging  # noqa: PLC0415 - seldom needed

        logging.getLogger("fsjail").warning("the watch failed", exc_info=error)
        self._lost = False
        self._lost_some("stopped" if ends else "failed", f"the watch failed: {type(error).__name__}")

    def close(self) -> None:
        """Let go of everything."""
        self._mute()
        for part in (getattr(self, name, None) for name in ("_trash", "_ledger", "_under_way")):
            if part is not None:
                part.close()
