"""New content on its way: written, synced, and only then given a name.

The content is an ``O_TMPFILE`` in the target's own folder, so that it inherits the folder's group and
ACL, and a crash leaves nothing. Where the file system has none (or ``/proc`` is missing, through which
it gets its name), it is an unguessable name in the trash's private ``stage/`` folder.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat as stat_
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from fsjail._copying import copy_metadata, write_all
from fsjail._syscalls import RENAME_NOREPLACE, renameat2

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_O_TMPFILE = getattr(os, "O_TMPFILE", 0)
# The file system has no O_TMPFILE, or an old kernel took it for a directory to be opened.
_NO_TMPFILE = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.ENOSYS}


NO_FLAG = {errno.ENOSYS, errno.EINVAL}  # renameat2, or a flag of it, is not to be had


class Staged:
    """A file without a name in the tree yet.

    Args:
        parent: descriptor of the folder that it is for.
        stage: gives the descriptor of the private folder for file systems without ``O_TMPFILE``.
    """

    def __init__(self, parent: int, stage: Callable[[], int]) -> None:
        self._name: str | None = None
        self._stage = -1
        self.fd = -1
        if _O_TMPFILE and os.access("/proc/self/fd", os.X_OK):
            try:
                self.fd = os.open(".", _O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666, dir_fd=parent)
            except OSError as error:
                if error.errno not in _NO_TMPFILE:
                    raise
        if self.fd < 0:
            self._stage, self._name = stage(), f"new-{os.urandom(12).hex()}"
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self.fd = os.open(self._name, flags, 0o666, dir_fd=self._stage)
            # Tells the recovery of another process that this content is not left over from a crash.
            fcntl.flock(self.fd, fcntl.LOCK_SH)

    def write(self, data: bytes | memoryview) -> None:
        """Write all of ``data``."""
        write_all(self.fd, data)

    def finish(self, like: int | None, *, durable: bool, times: bool = False) -> os.stat_result:
        """Take over mode, owner and extended attributes, and sync.

        Args:
            like: descriptor of the file whose place this one takes, or None.
            durable: whether to fsync.
            times: whether to take over the times too, as a copy does.

        Returns:
            ``fstat`` of the finished file.
        """
        if like is not None:
            copy_metadata(like, self.fd, times=times)
        if durable:
            os.fsync(self.fd)
        return os.fstat(self.fd)

    def name_as(self, folder: int, name: str) -> None:
        """Give the content its first name.

        Raises:
            FileExistsError: the name is taken; nothing was changed.
        """
        if self._name is None:
            # Through /proc: linkat with AT_EMPTY_PATH would need a capability.
            os.link(f"/proc/self/fd/{self.fd}", name, dst_dir_fd=folder, follow_symlinks=True)
            return
        rename_new(self._stage, self._name, folder, name)
        self._name = None

    def close(self) -> None:
        """Let go of the content; without a name it is gone."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        if self._name is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._name, dir_fd=self._stage)
            self._name = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def rename_new(src_fd: int, src: str, dst_fd: int, dst: str, *, private: bool = False) -> None:
    """Rename, never onto something; ``private`` says that nobody else can make the new name.

    Raises:
        FileExistsError: the destination exists; nothing was changed.
        OSError: as renameat2(2).
    """
    try:
        renameat2(src_fd, src, dst_fd, dst, RENAME_NOREPLACE)
    except OSError as error:
        # Without the flag (an old kernel, some network file systems) the same by other means.
        if error.errno not in NO_FLAG:
            raise
        if private:
            os.rename(src, dst, src_dir_fd=src_fd, dst_dir_fd=dst_fd)
        elif stat_.S_ISDIR(os.stat(src, dir_fd=src_fd, follow_symlinks=False).st_mode):
            os.mkdir(dst, 0o700, dir_fd=dst_fd)  # claims the name; a directory may replace an empty one
            try:
                os.rename(src, dst, src_dir_fd=src_fd, dst_dir_fd=dst_fd)
            except BaseException:
                os.rmdir(dst, dir_fd=dst_fd)
                raise
        else:
            os.link(src, dst, src_dir_fd=src_fd, dst_dir_fd=dst_fd, follow_symlinks=False)
            os.unlink(src, dir_fd=src_fd)


def sync_folder(folder: int, *, durable: bool) -> None:
    """Make the names in a folder durable; the descriptor may be an O_PATH one, which cannot be synced."""
    if not durable:
        return
    try:
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return  # search-only folder: its names cannot be synced by us
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # a file system without it
            raise
    finally:
        os.close(fd)
