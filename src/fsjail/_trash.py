"""The trash on descriptors: keep, replace, swap, give back, purge.

Each step of a change leaves a state that :meth:`TrashHome.recover` knows; the states are written
beside the steps.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from fsjail._across import AcrossDevices, KeptError
from fsjail._copying import demand_no_mount, remove_entry
from fsjail._errors import Moved, TrashError
from fsjail._home import NAME_MAX, NEW, Reason, kind_of, lstat, same, write_new
from fsjail._stage import NO_FLAG, rename_new
from fsjail._syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, renameat2

if TYPE_CHECKING:
    from fsjail._root import Target
    from fsjail._stage import Staged
    from fsjail._trashinfo import TrashItem

_NO_EXCHANGE = {errno.EXDEV, errno.EINVAL, errno.ENOSYS}
# No hard link can be had: the file system has none, or the kernel protects a foreign file.
_NO_LINK = {errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES}

__all__ = ["KeptError", "Reason", "TrashStore", "kind_of"]


class TrashStore(AcrossDevices):
    """The changes that put something into the trash or take it out."""

    def keep(self, target: Target, reason: Reason) -> TrashItem:
        """Move what a target names into the trash, whatever its kind and size: one rename.

        Raises:
            Moved: the name holds something else than what was judged; nothing was changed.
            TrashError: it cannot be kept (a mount point, a full disk); nothing was removed.
        """
        self.open()
        if target.kind:
            demand_no_mount(target.parent, target.leaf)
        with self._lock(fcntl.LOCK_SH):
            item = self.claim(target.st, reason)
            # Crash here: an info file without content; recover removes it.
            try:
                try:
                    self._rename_judged(target.parent, target.leaf, self._files, item.id, target.st)
                except OSError as error:
                    if error.errno != errno.EXDEV:
                        raise
                    self._keep_across(target, item.id)
            except KeptError:  # it is in the trash, but not all went as it should
                raise
            except BaseException as error:
                # An interrupt may come behind the rename: what is where decides.
                if not self.holds(item.id):
                    self.unclaim(item.id)
                raise _kept_nothing(error, reason.path) from None
            # Crash here: complete, perhaps not durable; after a power cut the name is back.
            self._sync_kept(item, target.parent)
        return item

    def replace(self, target: Target, new: Staged, reason: Reason) -> TrashItem:
        """Put finished content in the place of a regular file, whose inode goes to the trash.

        The old inode is linked into the trash first and then exchanged with the new one, so that
        at no moment a name is missing, and what another program put there meanwhile is kept too.

        Raises:
            Moved: the name holds something else than what was judged; nothing was changed.
        """
        self.open()
        with self._lock(fcntl.LOCK_SH):
            item = self.claim(target.st, reason, staged=os.fstat(new.fd))
            # Crash here: an info file without content; recover removes it.
            try:
                if not self._replace_here(target, new, item.id, reason):
                    self._replace_across(target, new, item.id)
            except BaseException as error:
                # An interrupt may come behind the exchange: what is where decides, as after a crash.
                self._recover_one(item.id)
                raise _kept_nothing(error, reason.path) from None
            # Crash here: complete.
            self._sync_kept(item, target.parent)
        return item

    def _replace_here(self, target: Target, new: Staged, identity: str, reason: Reason) -> bool:
        """The steps on one file system; False, with nothing done, where it is another one."""
        try:
            new.name_as(self._stage, identity)
            # Crash here: stage/ID is the new content; recover removes it and the info file.
            linked = self._link_old(target, identity)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._unlink(self._stage, identity)
            return False
        # Crash here: files/ID shares its inode with the live name: "not done yet"; recover
        # removes files/ID, stage/ID and the info file.
        self._exchange(identity, target)
        # Crash here: stage/ID is the old content; recover brings it to files/ID.
        self._settle(identity, target.st, linked=linked, reason=reason)
        return True

    def swap(self, identity: str, target: Target, reason: Reason) -> TrashItem:
        """Exchange a kept item with what has its place now; that goes to the trash.

        Raises:
            Moved: the name holds something else than what was judged; nothing was changed.
        """
        self.open()
        if target.kind:
            demand_no_mount(target.parent, target.leaf)
        with self._lock(fcntl.LOCK_SH):
            other = self.claim(target.st, reason)
            try:
                target.left = lstat(identity, self._files)
                renameat2(self._files, identity, target.parent, target.leaf, RENAME_EXCHANGE)
            except BaseException as error:
                self.unclaim(other.id)
                if not isinstance(error, OSError) or error.errno not in {
                    errno.EXDEV,
                    errno.EINVAL,
                    errno.ENOSYS,
                }:
                    raise _kept_nothing(error, reason.path) from None
            else:
                if not same(os.stat(identity, dir_fd=self._files, follow_symlinks=False), target.st):
                    renameat2(self._files, identity, target.parent, target.leaf, RENAME_EXCHANGE)
                    self.unclaim(other.id)
                    raise Moved
                # Crash here: files/ID holds the other content under the first info file: listed, not lost.
                rename_new(self._files, identity, self._files, other.id, private=True)
                self.unclaim(identity)
                self._sync_kept(other, target.parent)
                return other
        # Another file system, or no exchange: one after the other. Crash between: both in the trash.
        other = self.keep(target, reason)
        try:
            self.give_back(identity, target)
        except BaseException:
            self.give_back(other.id, target)
            raise
        return other

    def give_back(self, identity: str, target: Target) -> None:
        """Move a kept item to a free name.

        Raises:
            FileExistsError: the name is taken; nothing was changed.
        """
        self.open()
        with self._lock(fcntl.LOCK_SH):
            try:
                target.left = lstat(identity, self._files)
                renameat2(self._files, identity, target.parent, target.leaf, RENAME_NOREPLACE)
            except OSError as error:
                if error.errno == errno.EXDEV:
                    self._give_back_across(identity, target)
                elif error.errno in NO_FLAG:
                    self._give_back_linked(identity, target)
                else:
                    raise
            # Crash here: an info file without content; recover removes it.
            self.unclaim(identity)
            self._sync(target.parent, self._files)

    def _give_back_linked(self, identity: str, target: Target) -> None:
        """The same where it takes two steps: a crash between them leaves both names, and the mark."""
        mark = f"{identity}.mark"[-NAME_MAX:]
        write_new(self._stage, mark, b"", NEW)
        try:
            rename_new(self._files, identity, target.parent, target.leaf)
        finally:
            self._unlink(self._stage, mark)

    def move(self, source: Target, target: Target) -> None:
        """Rename what was judged to a free name.

        Raises:
            FileExistsError: the destination exists.
            Moved: the source holds something else than what was judged; nothing was changed.
        """
        target.left = source.st
        try:
            self._rename_judged(source.parent, source.leaf, target.parent, target.leaf, source.st)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise _kept_nothing(error, source.name) from None
            if error.errno != errno.EXDEV:
                raise
            self.open()
            with self._lock(fcntl.LOCK_SH):
                self._move_across(source, target)
        self._sync(source.parent, target.parent)

    def move_onto(self, source: Target, target: Target, reason: Reason) -> TrashItem:
        """Rename what was judged over a regular file, whose inode goes to the trash."""
        self.open()
        with self._lock(fcntl.LOCK_EX):
            item = self.claim(target.st, reason)
            mark = f"{item.id}.mark"
            try:
                write_new(self._stage, mark, b"", NEW)
                linked = self._link_old(target, item.id)
                # Crash here: files/ID shares its inode with the live name: "not done yet"; recover
                # removes files/ID and the info file, led by the mark.
                if not linked:
                    self._rename_judged(target.parent, target.leaf, self._files, item.id, target.st)
                if not same(_lstat(source), source.st):
                    raise Moved
                os.rename(source.leaf, target.leaf, src_dir_fd=source.parent, dst_dir_fd=target.parent)
            except BaseException as error:
                if _lstat(target) is None:  # it was renamed away, because links cannot be had here
                    with suppress(OSError):
                        rename_new(self._files, item.id, target.parent, target.leaf)
                self._recover_unfinished(item.id)
                self._unlink(self._stage, mark)
                if not isinstance(error, OSError) or error.errno != errno.EXDEV:
                    raise _kept_nothing(error, reason.path) from None
            else:
                self._unlink(self._stage, mark)
                target.left = source.st
                self._sync_kept(item, source.parent, target.parent)
                return item
        # Another file system: one after the other. Crash between: the old content is in the trash.
        item = self.keep(target, reason)
        try:
            self.move(source, target)
        except BaseException:
            self.give_back(item.id, target)
            raise
        return item

    def _sync_kept(self, item: TrashItem, *folders: int) -> None:
        """Sync what is done; where that fails it is done all the same, and the item is told."""
        try:
            self._sync(*folders, self._files)
        except OSError as error:
            message = f"it is done, and kept as {item.id}, but the disk did not confirm it: {error.strerror}"
            raise KeptError(error.errno or errno.EIO, message, kept=item.id) from None

    def _rename_judged(
        self, src_fd: int, src: str, dst_fd: int, dst: str, judged: os.stat_result | None
    ) -> None:
        """Rename to a free name, and back again if it was not the inode that had been judged."""
        rename_new(src_fd, src, dst_fd, dst, private=dst_fd == self._files)
        if not same(os.stat(dst, dir_fd=dst_fd, follow_symlinks=False), judged):
            with suppress(FileExistsError):
                rename_new(dst_fd, dst, src_fd, src)
                raise Moved
            message = f"something else took the name while it was moved; it is kept as {dst}"
            raise KeptError(errno.EBUSY, message, kept=dst if dst_fd == self._files else None)

    def _link_old(self, target: Target, identity: str) -> bool:
        """Link the live inode into the trash; False where links cannot be had."""
        try:
            # follow_symlinks=False: os.link follows its source by default.
            os.link(
                target.leaf, identity, src_dir_fd=target.parent, dst_dir_fd=self._files, follow_symlinks=False
            )
        except FileNotFoundError:
            raise Moved from None
        except OSError as error:
            if error.errno in _NO_LINK:
                return False
            raise
        if not same(os.stat(identity, dir_fd=self._files, follow_symlinks=False), target.st):
            raise Moved
        return True

    def _exchange(self, identity: str, target: Target) -> None:
        try:
            renameat2(self._stage, identity, target.parent, target.leaf, RENAME_EXCHANGE)
        except FileNotFoundError:
            raise Moved from None
        except OSError as error:
            # No exchange here: rename over the name, whose old inode the link has kept.
            if error.errno not in {errno.ENOSYS, errno.EINVAL}:
                raise
            os.rename(identity, target.leaf, src_dir_fd=self._stage, dst_dir_fd=target.parent)

    def _settle(self, identity: str, judged: os.stat_result | None, *, linked: bool, reason: Reason) -> None:
        """Bring what the exchange left in stage/ID to its place in the trash."""
        try:
            left = os.stat(identity, dir_fd=self._stage, follow_symlinks=False)
        except FileNotFoundError:
            return  # renamed over: files/ID has it
        if not linked:
            rename_new(self._stage, identity, self._files, identity, private=True)
            return
        kept = os.stat(identity, dir_fd=self._files, follow_symlinks=False)
        if same(kept, left):
            os.unlink(identity, dir_fd=self._stage)
        elif judged is not None and kept.st_nlink > judged.st_nlink:
            # Another change came between link and exchange, and has kept what we linked too (its link
            # and ours make up for the name that went, and one more): ours is what it had put there.
            os.rename(identity, identity, src_dir_fd=self._stage, dst_dir_fd=self._files)
        else:
            # Another program replaced the file there: both contents are kept.
            item = self.claim(left, reason)
            rename_new(self._stage, identity, self._files, item.id, private=True)

    def purge(self, identity: str) -> None:
        """Remove an item for good: out of the trash first, then its info file, then the content."""
        self.open()
        with self._lock(fcntl.LOCK_SH):
            leaving = f"purge-{identity}"[:255]
            os.rename(identity, leaving, src_dir_fd=self._files, dst_dir_fd=self._stage)
            # Crash here: recover ends the removal.
            self.unclaim(identity)
            remove_entry(self._stage, leaving, force=True)
            self._sync(self._files)


def _lstat(target: Target) -> os.stat_result | None:
    try:
        return os.stat(target.leaf, dir_fd=target.parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _kept_nothing(error: BaseException, path: str) -> BaseException:
    """Say what stands in the way where the plain error would not."""
    if isinstance(error, FileNotFoundError):
        return Moved()
    if isinstance(error, OSError) and error.errno == errno.EBUSY and not isinstance(error, TrashError):
        return TrashError(errno.EBUSY, "it is a mount point or in use; nothing was changed", path)
    return error
