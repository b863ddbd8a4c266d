"""Names in doubt: something happened there, and it is not yet certain whether a jail did it.

A change of a jail is seen before its record can be read: the record is written behind the act. So a name
waits until one of these holds:

- what stands there is what was expected, or what a record speaks of: nothing to report;
- every change that was under way when we looked has written its record (see `fsjail._underway`), the log was
  read after that, and it does not speak of what we saw: nobody's of the jail. By then every notice of what
  came before our look has been taken in (see `Reader.ring`): one that is late would be told as a change of
  its own.

A jail never writes into a file under a name that others see, nor changes its mode: it gives finished content
a name. So a notice of these two needs no waiting.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Literal, NamedTuple

from fsjail._seen import FOUND, UNSEEN, Seen, Unseen, alike
from fsjail._watched import CLOSED, CREATED, DELETED, IS_DIR, META, MOVED_FROM, MOVED_TO, WRITTEN

if TYPE_CHECKING:
    from fsjail._ledger import Ledger
    from fsjail._tree import Tree
    from fsjail._underway import UnderWay

_HIDDEN = re.compile(r"(?:^|/)\.fsjail-[0-9a-f]{24}(?:/|$)")  # a copy of the jail's, until it is whole
_HIDDEN_TOP = re.compile(r"(?:^|/)\.fsjail-[0-9a-f]{24}$")
_NAMELESS = re.compile(r"(?:^|/)#[0-9]+$")  # how the kernel calls staged content, if it does
_BLIND_NS = 250_000_000  # where nobody can tell what is under way, a record is waited for as long
_BELL_NS = 5_000_000_000  # and the bell, should nobody hear it
_LONGEST_NS = 30_000_000_000  # a jail that hangs in the middle of a change must not silence the watch
_FOLD_NS = 1_000_000_000  # writes into a file that is still open are one report as long
_MOST_OPEN = 10_000


class Found(NamedTuple):
    """A change that no record explains."""

    path: str
    op: str  # create, write, replace, attributes, delete
    was: Seen | None
    now: Seen | None
    passing: bool  # it came and was gone again before we could look
    looked: bool  # found by looking, not by a notice


class _Heard:
    """What was heard of one name: the bits of all notices, and when the first and the last came."""

    __slots__ = ("first", "flags", "last")

    def __init__(self) -> None:
        self.flags = 0
        self.first: int | None = None  # None where it was found by looking: it may have been at any time
        self.last: int | None = None

    def add(self, flags: int, first: int | None, last: int | None) -> None:
        if (self.flags | flags) & FOUND:
            self.first = self.last = None
        else:
            self.first, self.last = self.first if self.flags else first, last
        self.flags |= flags


class _Doubt:
    __slots__ = ("at", "heard", "later", "now", "waited", "wall")

    def __init__(self, heard: _Heard | None = None) -> None:
        self.heard = heard or _Heard()
        self.later = _Heard()  # after we looked
        self.now: Seen | Unseen | None = UNSEEN
        self.at = self.wall = 0  # when we had looked, by the clock of notices and by that of records
        self.waited = False  # a jail was at work then

    @property
    def flags(self) -> int:
        return self.heard.flags


class Doubts:
    """The names in doubt of one tree."""

    def __init__(self, tree: Tree, ledger: Ledger, under_way: UnderWay) -> None:
        self._tree = tree
        self._ledger = ledger
        self._under_way = under_way
        self._fresh: dict[str, _Doubt] = {}
        self._waiting: dict[str, _Doubt] = {}
        self._certain = 0  # changes that began before have their records
        self._asked = 0  # the moment that we wait for
        self._sure = 0  # what was seen before is certain
        self._looked = 0  # when we looked last
        self.caught: int | None = 0  # every notice of what came before is taken in; None where there are none
        self._urgent: set[str] = set()  # of those that wait: what needs no waiting any more
        self._writing: dict[str, int] = {}
        self.heard: int | None = None  # when the notice came that is being followed

    def __bool__(self) -> bool:
        """Whether any name is in doubt."""
        return bool(self._fresh or self._waiting)

    @property
    def certain(self) -> int:
        """Up to which moment of ``time.monotonic_ns()`` every change has its record in what was read."""
        return self._certain

    @property
    def wants_bell(self) -> bool:
        """Whether some notice may still be on its way of what we saw."""
        return bool(self._waiting) and self.caught is not None and self._looked > self.caught

    def tell(self, path: str, flags: int, seen: Seen | Unseen | None) -> None:
        """Put a name in doubt.

        Args:
            path: the name.
            flags: the bits of a notice, and ``FOUND``.
            seen: what stands there, or ``UNSEEN``.
        """
        waiting = self._waiting.get(path)
        if waiting is not None:
            waiting.later.add(flags, self.heard, self.heard)
            if flags & WRITTEN:
                self._urgent.add(path)
            return
        doubt = self._fresh.setdefault(path, _Doubt())
        doubt.heard.add(flags, self.heard, self.heard)
        if seen is not UNSEEN:
            doubt.now = seen

    def below(self, path: str) -> bool:
        """Tell whether a name beneath this one is in doubt."""
        prefix = path + "/"
        return any(name.startswith(prefix) for names in (self._fresh, self._waiting) for name in names)

    def settle(self, *, must: bool = False) -> list[Found]:
        """Look at what is in doubt, read the log, and give what is certain to be nobody's of the jail.

        Args:
            must: ask for a new moment of certainty even if no name is in doubt.
        """
        fresh, self._fresh = self._fresh, {}
        unseen = [path for path, doubt in fresh.items() if doubt.now is UNSEEN]
        for path, seen in self._tree.look(unseen).items():
            fresh[path].now = seen
        now, wall = time.monotonic_ns(), time.time_ns()
        for doubt in fresh.values():
            doubt.at, doubt.wall, self._looked = now, wall, now
        self._waiting.update(fresh)
        moved = (must or bool(self._waiting)) and self._ask(now)
        news = self._ledger.read()
        found = []
        urgent, self._urgent = self._urgent, set()
        names = self._waiting if moved or news else {*fresh, *urgent}
        for path in list(names):
            doubt = self._waiting[path]
            verdict = self._judge(path, doubt)
            if verdict is None:
                doubt.waited = True
                continue
            del self._waiting[path]
            if verdict is not True:
                found.append(verdict)
                if verdict.op == "delete":  # else it would explain a second time that something was there
                    self._ledger.drop(path, doubt.wall)
            if doubt.later.flags and not (verdict is not True and self._covers(path, doubt)):
                self._fresh[path] = _Doubt(doubt.later)
        return found

    def _covers(self, path: str, doubt: _Doubt) -> bool:
        """Whether what was told covers the notices that came since: they were of what we saw already."""
        return bool(doubt.later.flags & WRITTEN) or self._tree.look([path])[path] == doubt.now

    def _ask(self, now: int) -> bool:
        """Learn whether the changes under way when we looked are done; True if more is sure by that."""
        if self._asked and self._is_free(self._asked, now):
            self._certain, self._asked = self._asked, 0
        if not self._asked and now > self._certain:
            if self._is_free(now, now):
                self._certain = now
            else:
                self._asked = now
        before, self._sure = self._sure, self._certain
        if self.caught is not None:
            self._sure = min(self._sure, max(self.caught, now - _BELL_NS))
        return self._sure != before

    def _is_free(self, moment: int, now: int) -> bool:
        free = self._under_way.free(moment)
        if free is None:
            return now - moment > _BLIND_NS
        return free or now - moment > _LONGEST_NS

    def _judge(  # noqa: PLR0911 - one verdict a line
        self, path: str, doubt: _Doubt
    ) -> Found | Literal[True] | None:
        """Decide: a finding, True for nothing to report, None to wait."""
        tree, flags, now = self._tree, doubt.flags, doubt.now
        if isinstance(now, Unseen):
            return True  # closed to us; nothing can be said
        was = tree.expected(path)
        hidden = _HIDDEN.search(path) is not None
        nameless = now is None and _NAMELESS.search(path) is not None
        if (flags | doubt.later.flags) & WRITTEN and not hidden and not nameless:
            return self._written(path, doubt, was)
        begun = self._writing.get(path, -_FOLD_NS)
        if flags & CLOSED:
            self._writing.pop(path, None)
        listed = flags & FOUND != 0 and not flags & IS_DIR
        if self._ledger.explains(path, was, now, doubt.heard.last, listed=listed):
            tree.expect(path, now)
            return self._meta(path, was, now) if flags & META and not hidden else True
        sure = doubt.at <= self._sure
        if alike(was, now):
            return self._unchanged(path, doubt, was, now, sure=sure, hidden=hidden)
        if hidden and (now is None or not _HIDDEN_TOP.search(path)):
            tree.expect(path, now)  # when it gets its name, all that is in it is known
            return True
        if hidden and sure and tree.look([path])[path] is None:
            tree.expect(path, None)
            return True
        if not sure:
            return None
        if doubt.waited and self._is_passing(path, was, now, doubt):
            return True
        tree.expect(path, now)
        if flags & CLOSED and _belongs(begun, was, now):
            return True
        op = _op(was, now)
        if op == "write" and flags & META:  # only its times were set: of a write there is a notice
            op = "attributes"
        elif op in {"create", "replace"} and (put := self._ledger.put(path, doubt.heard.first)) is not None:
            op = "write" if now is not None and put.fact and put.fact[0] == now.ino else "replace"
        # Of what we saw before its notice, that is still to come; and whoever made a file, writes into it.
        to_come = op == "write" or (flags & CREATED and not flags & CLOSED)
        if to_come and not flags & FOUND and now is not None and now.is_file:
            self._writing[path] = time.monotonic_ns()
        return Found(path, op, was, now, passing=False, looked=bool(flags & FOUND))

    def _meta(self, path: str, was: Seen | None, now: Seen | None) -> Found | Literal[True]:
        """Report a change of mode, owner or times, which no jail makes; but once if it is still written."""
        if now is None or time.monotonic_ns() - self._writing.get(path, -_FOLD_NS) < _FOLD_NS:
            return True
        return Found(path, "attributes", was, now, passing=False, looked=False)

    def _is_passing(self, path: str, was: Seen | None, now: Seen | None, doubt: _Doubt) -> bool:
        """Whether what we saw was a state between: an operation of a jail that failed, or began anew.

        It gives back what it took, or takes it again; only the end is in its record.
        """
        if doubt.later.flags and self._ledger.touched(path):
            # More has happened since: what has become of it decides.
            later, doubt.later = doubt.later, doubt.heard
            doubt.later.add(later.flags, later.first, later.last)
            return True
        again = self._tree.look([path])[path]
        if isinstance(again, Unseen) or alike(now, again) or (was is None and not self._ledger.touched(path)):
            return False
        if alike(was, again) or self._ledger.explains(path, was, again, doubt.heard.last):
            self._tree.expect(path, again)
            return True
        return False

    def _unchanged(
        self, path: str, doubt: _Doubt, was: Seen | None, now: Seen | None, *, sure: bool, hidden: bool
    ) -> Found | Literal[True] | None:
        """Decide on a name where the content is as expected."""
        flags = doubt.flags
        if was is None or now is None:  # nothing is there, as before
            return self._nothing(path, doubt, sure=sure, hidden=hidden)
        if flags & META and not hidden:
            self._tree.expect(path, now)
            return self._meta(path, was, now)
        if now.is_file and now.links > was.links:
            if not sure:  # the jail links what it overwrites into the trash, for an instant
                return None
            again = self._tree.look([path])[path]
            if isinstance(again, Seen) and alike(again, was) and again.links > was.links:
                self._tree.expect(path, again)
                return Found(path, "link", was, again, passing=False, looked=bool(flags & FOUND))
            return True
        self._tree.expect(path, now)
        return True

    def _nothing(self, path: str, doubt: _Doubt, *, sure: bool, hidden: bool) -> Found | Literal[True] | None:
        """Decide on a name where nothing was expected and nothing is."""
        came, went = doubt.flags & (CREATED | MOVED_TO), doubt.flags & (DELETED | MOVED_FROM)
        if hidden or not (came or went):
            return True
        if not sure:
            return None
        # By a jail, before what is gone went; but no jail took it away again.
        if self._ledger.put(path, doubt.heard.first if came else None):
            return Found(path, "delete", None, None, passing=True, looked=False) if went else True
        if not came or (doubt.waited and self._ledger.touched(path)):
            return True
        return Found(path, "create", None, None, passing=True, looked=False)

    def _written(self, path: str, doubt: _Doubt, was: Seen | None) -> Found | Literal[True]:
        """Report a write; those that follow while the file stays open belong to it, for a second."""
        moment = time.monotonic_ns()
        seen = self._tree.look([path])[path] if doubt.later.flags or doubt.now is None else doubt.now
        now = seen if isinstance(seen, Seen) else None
        flags = doubt.flags | doubt.later.flags
        self._tree.expect(path, now)
        begun = self._writing.get(path, -_FOLD_NS)
        if len(self._writing) > _MOST_OPEN:
            self._writing = {name: at for name, at in self._writing.items() if moment - at < _FOLD_NS}
        if flags & CLOSED:
            self._writing.pop(path, None)
        elif moment - begun >= _FOLD_NS:
            self._writing[path] = moment
        if _belongs(begun, was, now):
            return True
        op = "write" if was == now or self._ledger.touched(path) else _op(was, now)
        return Found(path, op, was, now, passing=now is None, looked=False)


def _belongs(begun: int, was: Seen | None, now: Seen | None) -> bool:
    """Whether a write belongs to one that was told when it began: into the same file, a moment ago."""
    same = was is not None and now is not None and was.ino == now.ino
    return same and time.monotonic_ns() - begun < _FOLD_NS


def _op(was: Seen | None, now: Seen | None) -> str:
    """Name what happened."""
    if was is None:
        return "create" if now is not None else "write"
    if now is None:
        return "delete"
    if was.ino != now.ino or now.is_link:  # a link cannot be written, but its inode used again
        return "replace"
    return "attributes" if now.is_dir or (was.size, was.mtime) == (now.size, now.mtime) else "write"
