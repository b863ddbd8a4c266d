"""What the trash holds: items, their sizes and contents."""

from __future__ import annotations

import errno
import os
import stat as stat_
from operator import attrgetter
from typing import TYPE_CHECKING

from fsjail._errors import LimitExceeded, Moved
from fsjail._home import NAME_MAX, TrashHome, kind_of, read_info
from fsjail._root import reopen
from fsjail._selftest import DIRECTORY, HOW_DIRECTORY, READ, self_test
from fsjail._syscalls import openat2
from fsjail._trashinfo import INFO, TrashItem, damaged, parse_info, parse_usual

if TYPE_CHECKING:
    from collections.abc import Iterator


class KeptItems(TrashHome):
    """Looking into the trash."""

    def items(self) -> list[TrashItem]:
        """What the trash holds, newest first; damaged items too, with ``why="damaged"``."""
        if not self.open(create=False):
            return []
        found = []
        with os.scandir(self._files) as listing:
            # Datetimes compare slowly. Our ids begin with the time: little is left for the second sort.
            entries = sorted(listing, key=attrgetter("name"), reverse=True)
        for entry in entries:
            name = entry.name
            try:
                found.append(self._file(entry, name) or self._item(name))
            except FileNotFoundError:  # restored or purged meanwhile
                continue
        found.sort(key=attrgetter("deleted_at"), reverse=True)
        return found

    def item(self, identity: str) -> TrashItem:
        """One item.

        Raises:
            FileNotFoundError: there is none with this id.
        """
        if not self._is_name(identity) or not self.open(create=False):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), identity)
        return self._item(identity)

    def has(self, identity: str) -> bool:
        """Whether there is an item with this id."""
        return self._is_name(identity) and self.open(create=False) and self.holds(identity)

    @staticmethod
    def _is_name(identity: str) -> bool:
        bad = not identity or "/" in identity or "\0" in identity or identity in {".", ".."}
        return not bad and len(os.fsencode(identity)) <= NAME_MAX

    def _file(self, entry: os.DirEntry[str], name: str) -> TrashItem | None:
        """A file whose info file tells its size too: half the system calls of :meth:`_item`."""
        try:
            if entry.is_file(follow_symlinks=False):
                return parse_usual(read_info(self._info, name + INFO), name)
        except OSError:
            pass
        return None

    def _item(self, identity: str) -> TrashItem:
        st = os.stat(identity, dir_fd=self._files, follow_symlinks=False)
        size = st.st_size
        if stat_.S_ISDIR(st.st_mode):
            try:
                size = self._size(identity)
            except (OSError, Moved):  # closed to us, or changed under us: it can be restored all the same
                size = 0
        kind = kind_of(st)
        try:
            text = read_info(self._info, identity + INFO)
        except OSError:
            return damaged(identity, kind, size, st.st_ctime)
        return parse_info(text, identity, kind, size, st.st_ctime, self.real)

    def read(self, identity: str, most: int | None) -> bytes:
        """The content of a kept file.

        Raises:
            LimitExceeded: it is larger than ``most`` bytes.
        """
        fd = os.open(identity, READ, dir_fd=self._files)
        with os.fdopen(fd, "rb") as stream:
            size = os.fstat(fd).st_size
            if most is not None and size > most:
                raise LimitExceeded(errno.EFBIG, f"{size} bytes are over the limit of {most} for one read")
            return stream.read()

    def _size(self, identity: str) -> int:
        total = 0
        for name, st in self._below(identity):
            del name
            if st is not None:
                total += st.st_size
        return total

    def names_below(self, identity: str) -> Iterator[tuple[str, bool | None]]:
        """Relative names in a kept directory, with whether each is a directory (None for a link)."""
        for name, st in self._below(identity):
            link = st is not None and stat_.S_ISLNK(st.st_mode)
            yield name, None if link else st is None

    def _below(self, identity: str) -> Iterator[tuple[str, os.stat_result | None]]:
        """Relative names in a kept directory, with the lstat of what is no directory.

        Each directory is opened anew by its name, so that depth costs neither descriptors nor stack.
        """
        pending = [""]
        while pending:
            below = pending.pop()
            here = self._open_kept(f"{identity}/{below}" if below else identity)
            try:
                with os.scandir(here) as entries:
                    for entry in entries:
                        name = f"{below}/{entry.name}" if below else entry.name
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(name)
                            yield name, None
                        else:
                            yield name, entry.stat(follow_symlinks=False)
            finally:
                os.close(here)

    def _open_kept(self, name: str) -> int:
        """Open a directory in the trash; no component may be a link."""
        if self_test():
            try:
                return openat2(self._files, os.fsencode(name), HOW_DIRECTORY)
            except OSError as error:
                if error.errno not in {errno.ENAMETOOLONG, errno.ENOSYS, errno.EPERM}:
                    raise
        fd = reopen(self._files, name.split("/"))
        try:
            return os.open(".", DIRECTORY, dir_fd=fd)
        finally:
            os.close(fd)
