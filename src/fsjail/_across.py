"""The trash across file systems: a nested mount, an overlay or a bind mount inside the root.

Whether two names lie on one file system is told by ``EXDEV`` alone: overlays and bind mounts share
their ``st_dev``. What cannot be renamed is copied whole, synced, renamed into its name on the other
side, and only then removed here; a failure at any point keeps the original.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from fsjail._copying import copy_data, copy_entry, copy_metadata, demand_no_mount, remove_entry
from fsjail._crash import Recovery
from fsjail._errors import Moved, TrashError
from fsjail._home import NEW, lstat, same, write_new
from fsjail._stage import rename_new
from fsjail._syscalls import RENAME_EXCHANGE, renameat2, syncfs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsjail._copying import OnEntry
    from fsjail._root import Target
    from fsjail._stage import Staged


class AcrossDevices(Recovery):
    """The steps of :class:`TrashStore` where a rename answers ``EXDEV``."""

    def bring(self, folder: int, name: str, target: Target, on_entry: OnEntry | None = None) -> int:
        """Copy an entry to a free name: built where it is not seen, then renamed in.

        Args:
            folder: descriptor of the folder that holds the original.
            name: its name there.
            target: the free name.
            on_entry: called for each entry beneath; raises to refuse.

        Returns:
            bytes copied.

        Raises:
            FileExistsError: the name is taken.
        """
        self.open()
        with self._lock(fcntl.LOCK_SH):
            total = self._bring(folder, name, target, on_entry)
        self._sync(target.parent)
        return total

    def _bring(self, folder: int, name: str, target: Target, on_entry: OnEntry | None) -> int:
        with self._hidden() as new:
            total = copy_entry(folder, name, self._stage, new, on_entry)
            try:
                self._sync_all(self._stage)
                target.left = lstat(new, self._stage)
                rename_new(self._stage, new, target.parent, target.leaf)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
            else:
                return total
        with self._beside(target) as new:
            total = copy_entry(folder, name, target.parent, new, on_entry)
            self._sync_all(target.parent)
            target.left = lstat(new, target.parent)
            rename_new(target.parent, new, target.parent, target.leaf)
        return total

    @contextmanager
    def _hidden(self) -> Iterator[str]:
        """A free name in the stage; what still has it at the end is removed.

        Crash inside: recover removes it, for no info file has its name.
        """
        name = f"new-{os.urandom(12).hex()}"
        try:
            yield name
        finally:
            with suppress(FileNotFoundError):
                remove_entry(self._stage, name)

    @contextmanager
    def _beside(self, target: Target, identity: str = "") -> Iterator[str]:
        """A free, unguessable name in the target's own folder, for which the stage holds a mark.

        Crash inside: recover finds the name by the mark, and removes it.
        """
        token = os.urandom(12).hex()
        mark, name = f"{token}.beside", f".fsjail-{token}"
        place = os.fsencode(f"{os.path.dirname(target.name)}\0{identity}")
        write_new(self._stage, mark, place, NEW, durable=self.durable)
        try:
            yield name
        finally:
            with suppress(FileNotFoundError):
                remove_entry(target.parent, name)
            self._unlink(self._stage, mark)

    def _sync_all(self, folder: int) -> None:
        """One sync for all that was copied; the descriptor may be an O_PATH one."""
        if self.durable:
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
            try:
                syncfs(fd)
            finally:
                os.close(fd)

    def _copy_old(self, target: Target, identity: str) -> None:
        """Copy what a target names into the trash, whole."""
        with self._hidden() as new:
            copy_entry(target.parent, target.leaf, self._stage, new)
            self._unchanged(target)
            self._sync_all(self._stage)
            rename_new(self._stage, new, self._files, identity)
            # Crash here: kept, and still at its name: a copy too many, nothing lost.

    @staticmethod
    def _unchanged(target: Target) -> None:
        """Look anew if the name was swapped, or its content written, while it was copied."""
        try:
            st = os.stat(target.leaf, dir_fd=target.parent, follow_symlinks=False)
        except FileNotFoundError:
            raise Moved from None
        old = target.st
        if old is None or not same(st, old) or (st.st_size, st.st_mtime_ns) != (old.st_size, old.st_mtime_ns):
            raise Moved

    def _keep_across(self, target: Target, identity: str) -> None:
        demand_no_mount(target.parent, target.leaf)
        self._copy_old(target, identity)
        try:
            remove_entry(target.parent, target.leaf)
        except OSError as error:
            message = f"it is kept as {identity}, but could not be removed wholly: {error.strerror}"
            raise KeptError(error.errno or errno.EIO, message, kept=identity) from None

    def _replace_across(self, target: Target, new: Staged, identity: str) -> None:
        self._copy_old(target, identity)
        with self._beside(target, identity) as name:
            try:
                new.name_as(target.parent, name)
            except OSError as error:  # it lies in the stage, on the other side
                if error.errno != errno.EXDEV:
                    raise
                self._copy_new(new, target, name)
            # Crash before: recover removes the name beside; the old content has its name.
            renameat2(target.parent, name, target.parent, target.leaf, RENAME_EXCHANGE)
            # Crash behind: recover removes the old content beside, which the trash has; and keeps it if
            # it is not that.
            left = os.stat(name, dir_fd=target.parent, follow_symlinks=False)
            if not same(left, target.st):
                # Another program replaced the file meanwhile: its content is kept too.
                self.keep_too(left, identity, target.parent, name)

    def place_across(self, new: Staged, target: Target) -> None:
        """Give content that lies in the stage a free name on another file system.

        Raises:
            FileExistsError: the name is taken.
        """
        self.open()
        with self._lock(fcntl.LOCK_SH), self._beside(target) as name:
            self._copy_new(new, target, name)
            rename_new(target.parent, name, target.parent, target.leaf)

    def _copy_new(self, new: Staged, target: Target, name: str) -> None:
        fd = os.open(name, NEW, 0o600, dir_fd=target.parent)
        try:
            copy_data(new.fd, fd)
            copy_metadata(new.fd, fd, times=True)
            if self.durable:
                os.fsync(fd)
            target.left = os.fstat(fd)
        finally:
            os.close(fd)

    def _move_across(self, source: Target, target: Target) -> None:
        demand_no_mount(source.parent, source.leaf)
        with self._beside(target) as name:
            copy_entry(source.parent, source.leaf, target.parent, name)
            self._unchanged(source)
            self._sync_all(target.parent)
            target.left = lstat(name, target.parent)
            rename_new(target.parent, name, target.parent, target.leaf)
            # Crash here: at both names.
        try:
            remove_entry(source.parent, source.leaf)
        except OSError as error:
            message = f"it was copied, but the original could not be removed wholly: {error.strerror}"
            raise TrashError(error.errno or errno.EIO, message) from None

    def _give_back_across(self, identity: str, target: Target) -> None:
        with self._beside(target) as name:
            copy_entry(self._files, identity, target.parent, name)
            self._sync_all(target.parent)
            target.left = lstat(name, target.parent)
            rename_new(target.parent, name, target.parent, target.leaf)
            # Crash here: restored, and still in the trash.
        remove_entry(self._files, identity)


class KeptError(TrashError):
    """What was moved is safe, as the item ``kept`` of the trash, but not all behind that went well."""

    def __init__(self, number: int, message: str, *, kept: str | None) -> None:
        super().__init__(number, message)
        self.kept = kept

    def __reduce__(self) -> tuple[object, ...]:
        return TrashError, (self.errno, self.strerror)
