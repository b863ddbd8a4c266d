"""The directories of a root: a watch on each, and what is expected at each name.

Notices of the kernel only say where to look. The truth is what stands at a name now, compared with what was
expected there; so lost notices cost nothing but time, once the whole tree is looked at again.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from fsjail._errors import Moved
from fsjail._root import reopen
from fsjail._seen import FOUND, UNSEEN, Folder, Seen, Unseen, alike
from fsjail._selftest import HOW_PARENT
from fsjail._syscalls import openat2
from fsjail._watched import CHANGES, CREATED, DELETED, IGNORED, IS_DIR, MOVED_FROM, MOVED_TO, SELF

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fsjail._root import Root
    from fsjail._watched import Notice, Reader

    Tell = Callable[[str, int, "Seen | Unseen | None"], None]

_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EXDEV}
_MOVE_NS = 20_000_000  # how long the second half of a move may keep us waiting


class Tree:
    """The directories of a root. Only one thread may use it.

    Args:
        root: held open.
        reader: sets the watches; None where the tree is polled.
        skipped: device and inode of directories that are the jail's own business.
        own: names that are the jail's own business, and all beneath.

    Attributes:
        blind: directories that cannot be listed.
        unwatched: directories that no watch could be set on.
    """

    def __init__(
        self, root: Root, reader: Reader | None, skipped: frozenset[tuple[int, int]], own: frozenset[str]
    ) -> None:
        self._root = root
        self._reader = reader
        self._skipped = skipped
        self._own = own
        self.top = Folder("", None)
        self.by_watch: dict[int, Folder] = {}
        self._by_key: dict[tuple[int, int], Folder] = {}
        self._moving: dict[int, tuple[Folder, str, int]] = {}
        # Directories that came or went whole, by the name in question: what is in them had no notice.
        self.carried: dict[str, Folder] = {}
        self.moved: list[tuple[str, Folder]] = []  # the names that directories had, and they
        self.shaken = False  # notices were lost: a directory may have moved without our knowing
        self.blind: set[str] = set()
        self.unwatched: set[str] = set()

    # ── looking ────────────────────────────────────────────────────────────────────────────────

    def look(self, paths: Iterable[str]) -> dict[str, Seen | Unseen | None]:
        """Look at names; ``UNSEEN`` where nothing can be said."""
        found: dict[str, Seen | Unseen | None] = {}
        groups: dict[str, list[str]] = {}
        for path in paths:
            groups.setdefault(path.rpartition("/")[0], []).append(path)
        for parent, inside in groups.items():
            try:
                fd = self._hold(parent)
            except (OSError, Moved) as error:
                answer = None if isinstance(error, Moved) or error.errno in _GONE else UNSEEN
                found.update(dict.fromkeys(inside, answer))
                continue
            try:
                for path in inside:
                    try:
                        st = os.stat(path.rpartition("/")[2], dir_fd=fd, follow_symlinks=False)
                        found[path] = Seen.of(st)
                    except OSError as error:
                        found[path] = None if error.errno in _GONE else UNSEEN
            finally:
                os.close(fd)
        return found

    def _hold(self, name: str) -> int:
        """Open a directory of the tree to look up names in it; nothing is followed on the way."""
        if self._root.fast:
            try:
                return openat2(self._root.fd, os.fsencode(name) or b".", HOW_PARENT)
            except OSError as error:
                if error.errno not in {errno.ENOSYS, errno.EPERM}:
                    raise
        return reopen(self._root.fd, name.split("/") if name else [])

    def find(self, path: str) -> Folder | None:
        """The directory that holds a name, if it is known."""
        here = self.top
        for part in path.split("/")[:-1]:
            below = here.folders.get(part)
            if below is None:
                return None
            here = below
        return here

    def expected(self, path: str) -> Seen | None:
        """What was last seen, or accepted, at a name."""
        folder = self.find(path)
        return None if folder is None else folder.names.get(path.rpartition("/")[2])

    def expect(self, path: str, seen: Seen | None) -> None:
        """Take what stands at a name for what is to stand there."""
        folder = self.find(path)
        if folder is None:
            return
        leaf = path.rpartition("/")[2]
        if seen is None:
            folder.names.pop(leaf, None)
        else:
            folder.names[leaf] = seen

    def inodes(self) -> dict[int, int]:
        """How many names each inode has in the tree."""
        counts: dict[int, int] = {}
        for folder in self.top.all():
            for seen in folder.names.values():
                counts[seen.ino] = counts.get(seen.ino, 0) + 1
        return counts

    # ── the whole tree ─────────────────────────────────────────────────────────────────────────

    def fill(self) -> None:
        """Set the watches and take everything that is there as expected.

        Raises:
            OSError: the top itself cannot be listed or watched.
        """
        names = self._list(self.top, strict=True)
        self._compare(self.top, names or {}, None)

    def rescan(self, tell: Tell) -> None:
        """Look at everything anew and tell what differs from what was expected."""
        self.blind.clear()
        self.unwatched.clear()
        self._compare(self.top, self._list(self.top), tell)

    def _compare(self, top: Folder, listed: dict[str, Seen] | None, tell: Tell | None) -> None:
        """Compare a directory and all beneath with what was expected; the watch of each is set first."""
        pending = [(top, listed)]
        while pending:
            here, now = pending.pop()
            if now is None:
                continue
            prefix = here.path()
            prefix = f"{prefix}/" if prefix else ""
            if tell is None:
                here.names = now
            else:
                for name in here.names.keys() - now.keys():
                    tell(prefix + name, FOUND | DELETED, None)
            for name, folder in list(here.folders.items()):
                seen = now.get(name)
                if seen is None or not seen.is_dir or seen.ino != folder.key[1]:
                    del here.folders[name]
                    self.drop(folder)
            for name, seen in now.items():
                if tell is not None:
                    was = here.names.get(name)
                    if was is None or not alike(was, seen) or (seen.is_file and seen.links > was.links):
                        tell(prefix + name, FOUND | CREATED if was is None else FOUND, seen)
                if seen.is_dir:
                    below = here.folders.get(name)
                    if below is None:
                        below = here.folders[name] = Folder(name, here)
                    pending.append((below, self._list(below)))

    def _list(self, folder: Folder, *, strict: bool = False) -> dict[str, Seen] | None:
        """Watch a directory, then list it: what comes later has a notice."""
        path = folder.path()
        try:
            fd = self._root.open_directory(path or ".")
        except (OSError, Moved) as error:
            if strict and isinstance(error, OSError):
                raise
            if isinstance(error, OSError) and error.errno not in _GONE:
                self.blind.add(path or ".")
            return None
        try:
            st = os.fstat(fd)
            folder.key = (st.st_dev, st.st_ino)
            if folder.key in self._skipped or self._is_alias(folder):
                return {}
            self._by_key[folder.key] = folder
            self._set_watch(folder, fd, path, strict=strict)
            own = {name.rpartition("/")[2] for name in self._own if name.rpartition("/")[0] == path}
            with os.scandir(fd) as entries:
                return {
                    entry.name: seen
                    for entry in entries
                    if entry.name not in own and (seen := _stat(entry)) is not None
                }
        except OSError:
            if strict:
                raise
            self.blind.add(path or ".")
            return None
        finally:
            os.close(fd)

    def _is_alias(self, folder: Folder) -> bool:
        """Whether another name, still there, has brought us into this directory: a bind mount."""
        other = self._by_key.get(folder.key)
        if other is None or other is folder:
            return False
        if self._attached(other):
            if self._stands(other):
                return True
            if other.parent is not None:
                other.parent.folders.pop(other.name, None)
        self.drop(other)
        return False

    def _set_watch(self, folder: Folder, fd: int, path: str, *, strict: bool) -> None:
        if self._reader is None or folder.watch >= 0:
            return
        try:
            folder.watch = self._reader.add(fd, CHANGES | SELF if folder is self.top else CHANGES)
        except OSError:
            if strict:
                raise
            self.unwatched.add(path or ".")
        else:
            self.by_watch[folder.watch] = folder

    def _attached(self, folder: Folder) -> bool:
        here = folder
        while here.parent is not None:
            if here.parent.folders.get(here.name) is not here:
                return False
            here = here.parent
        return here is self.top

    def drop(self, folder: Folder) -> None:
        """Forget a directory and all beneath, with their watches."""
        watches = []
        for each in folder.all():
            if self._by_key.get(each.key) is each:
                del self._by_key[each.key]
            if each.watch >= 0 and self.by_watch.get(each.watch) is each:
                del self.by_watch[each.watch]
                watches.append(each.watch)
            each.watch = -1
        if self._reader is not None:
            self._reader.remove(watches)

    # ── one notice ─────────────────────────────────────────────────────────────────────────────

    def heard(self, notice: Notice, tell: Tell) -> None:
        """Follow what a notice says of directories, and tell which name to look at."""
        folder = self.by_watch.get(notice.watch)
        if folder is None:
            return
        if notice.mask & IGNORED:
            del self.by_watch[notice.watch]
            folder.watch = -1
            if folder is not self.top and self._attached(folder):
                # Its name may stand for a new directory already, which can even have the same inode.
                self._compare(folder, self._list(folder), tell)
            return
        if not notice.name or not self._attached(folder):
            return
        leaf = os.fsdecode(notice.name)
        path = folder.path(leaf)
        if path in self._own or (self.shaken and not self._stands(folder)):
            return
        if notice.mask & IS_DIR:
            if notice.mask & (MOVED_FROM | DELETED):
                self._left(folder, leaf, path, notice)
            elif notice.mask & (MOVED_TO | CREATED):
                self._came(folder, leaf, path, notice, tell)
        tell(path, notice.mask, UNSEEN)

    def _stands(self, folder: Folder) -> bool:
        """Whether a directory still has the name that we know it by."""
        path = folder.path()
        seen = self.look([path])[path] if path else None
        return path == "" or (isinstance(seen, Seen) and seen.ino == folder.key[1])

    def _left(self, folder: Folder, leaf: str, path: str, notice: Notice) -> None:
        below = folder.folders.get(leaf)
        if below is None:
            return
        seen = self.look([path])[path]
        if isinstance(seen, Seen) and seen.is_dir and seen.ino == below.key[1]:
            return  # it came back meanwhile, or this notice is of one before it: what is known is of now
        del folder.folders[leaf]
        if notice.mask & MOVED_FROM:
            self._moving[notice.cookie] = (below, path, notice.at)
            self.carried[path] = below
        else:
            self.drop(below)

    def _came(self, folder: Folder, leaf: str, path: str, notice: Notice, tell: Tell) -> None:
        moved = self._moving.pop(notice.cookie, None) if notice.mask & MOVED_TO else None
        known = folder.folders.get(leaf)
        if known is not None:
            seen = self.look([path])[path]
            same = moved is None and isinstance(seen, Seen) and seen.ino == known.key[1]
            if same and known.watch >= 0:
                return  # a look at its parent has found it before
            if not same:
                del folder.folders[leaf]
                if moved is not None and moved[0].key == known.key:
                    self.drop(moved[0])
                    folder.folders[leaf], moved = known, None
                    return
                self.drop(known)
        if moved is None:
            known = folder.folders.setdefault(leaf, Folder(leaf, folder))
            self._compare(known, self._list(known), tell)
            return
        below = moved[0]
        below.name, below.parent = leaf, folder
        folder.folders[leaf] = self.carried[path] = below
        self.moved.append((moved[1], below))

    def recheck(self, folder: Folder, tell: Tell) -> None:
        """Compare one directory and all beneath with what was expected."""
        self._compare(folder, self._list(folder), tell)

    def moved_out(self, cookie: int) -> None:
        """The second half of a move led into the trash."""
        moved = self._moving.pop(cookie, None)
        if moved is not None:
            self.drop(moved[0])

    def settle_moves(self, now: int) -> bool:
        """Give up on moves whose second half does not come: they led out of the tree.

        Returns:
            whether some are still waited for.
        """
        for cookie, moved in list(self._moving.items()):
            if now - moved[2] > _MOVE_NS:
                del self._moving[cookie]
                self.drop(moved[0])
        return bool(self._moving)


def _stat(entry: os.DirEntry[str]) -> Seen | None:
    try:
        return Seen.of(entry.stat(follow_symlinks=False))
    except OSError:
        return None  # gone again: it has a notice, or the next look finds it
