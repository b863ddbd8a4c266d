"""Copying and removing on descriptors, with metadata; links are copied as links, never followed.

Serves ``Jail.copy``, and whatever has to cross from one file system to another.
"""

from __future__ import annotations

import errno
import os
import stat as stat_
from contextlib import suppress
from typing import TYPE_CHECKING

from fsjail._errors import Moved, NotRegularFile, TrashError
from fsjail._selftest import DIRECTORY, PATH, READ

if TYPE_CHECKING:
    from collections.abc import Callable

    OnEntry = Callable[[str, os.stat_result, int], None]

_CHUNK = 1 << 20
_DEEPEST = 200  # directories that a copy may be nested: it holds two descriptors for each
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# copy_file_range is not there, or not between these two files: read and write instead.
_NO_RANGE = {errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM}


def copy_data(source: int, target: int) -> int:
    """Copy a file's data into an empty one; holes stay holes.

    Args:
        source: descriptor for reading; its position does not matter.
        target: descriptor for writing.

    Returns:
        the size in bytes.
    """
    size, at = os.fstat(source).st_size, 0
    while at < size:
        try:
            begin = os.lseek(source, at, os.SEEK_DATA)
            end = os.lseek(source, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break  # a hole to the end
            if error.errno not in {errno.EINVAL, errno.EOPNOTSUPP}:
                raise
            begin, end = at, size  # no holes on this file system
        at = _copy_range(source, target, begin, end)
        if at < end:
            size = at  # it became shorter meanwhile
    os.ftruncate(target, size)
    # What grew behind the size, and files of /proc, whose size is 0.
    os.lseek(source, size, os.SEEK_SET)
    os.lseek(target, size, os.SEEK_SET)
    while chunk := os.read(source, _CHUNK):
        write_all(target, chunk)
        size += len(chunk)
    return size


def _copy_range(source: int, target: int, at: int, end: int) -> int:
    fast = hasattr(os, "copy_file_range")
    while at < end:
        if fast:
            try:
                done = os.copy_file_range(source, target, min(end - at, 1 << 30), at, at)
            except OSError as error:
                if error.errno not in _NO_RANGE:
                    raise
                fast = False
                continue
            if done == 0:
                fast = False  # the end, or a file system that lies: reading tells
                continue
        else:
            chunk = os.pread(source, min(end - at, _CHUNK), at)
            if not chunk:
                return at
            done = os.pwrite(target, chunk, at)
        at += done
    return at


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of ``data``; os.write may write less than it is given."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def copy_metadata(source: int, target: int, *, times: bool, privileges: bool = False) -> None:
    """Copy owner, mode, extended attributes, and if wanted the times, from descriptor to descriptor.

    What the caller may not set (a foreign owner, a protected attribute) is left as it is. Set-id bits
    and capabilities go over only with ``privileges``, when the very content moves: as with write(2),
    new content must not run with the rights of the old.
    """
    old, new = os.fstat(source), os.fstat(target)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        with suppress(OSError):  # EPERM, or EINVAL for an owner that a user namespace does not know
            os.fchown(target, old.st_uid, old.st_gid)
    if hasattr(os, "listxattr"):
        with suppress(OSError):
            for name in os.listxattr(source):
                if name == "security.capability" and not privileges:
                    continue
                with suppress(OSError):
                    os.setxattr(target, name, os.getxattr(source, name))
    mode = stat_.S_IMODE(old.st_mode)
    if not privileges or os.fstat(target).st_uid != old.st_uid:
        # On a directory set-gid only says which group new files get.
        mode &= ~(stat_.S_ISUID | (0 if stat_.S_ISDIR(old.st_mode) else stat_.S_ISGID))
    os.fchmod(target, mode)
    if times:
        os.utime(target, ns=(old.st_atime_ns, old.st_mtime_ns))


def copy_entry(
    src_fd: int, src: str, dst_fd: int, dst: str, on_entry: OnEntry | None = None, below: str = ""
) -> int:
    """Copy a file, link or whole tree to a new name.

    Args:
        src_fd: descriptor of the folder that holds it.
        src: its name there.
        dst_fd: descriptor of the folder for the copy.
        dst: the copy's name, which must be free.
        on_entry: called with the relative name, lstat and folder of each entry beneath; raises to refuse.
        below: the relative name so far.

    Returns:
        bytes of data.

    Raises:
        Moved: the name was swapped for a link.
        FileExistsError: ``dst`` is taken.
    """
    st = os.stat(src, dir_fd=src_fd, follow_symlinks=False)
    if stat_.S_ISDIR(st.st_mode):
        if below.count("/") >= _DEEPEST:
            raise OSError(errno.ENAMETOOLONG, f"it is nested more than {_DEEPEST} directories deep")
        return _copy_folder(src_fd, src, dst_fd, dst, on_entry, below)
    if stat_.S_ISLNK(st.st_mode):
        os.symlink(os.readlink(src, dir_fd=src_fd), dst, dir_fd=dst_fd)
        with suppress(OSError):
            os.chown(dst, st.st_uid, st.st_gid, dir_fd=dst_fd, follow_symlinks=False)
        os.utime(dst, ns=(st.st_atime_ns, st.st_mtime_ns), dir_fd=dst_fd, follow_symlinks=False)
        return 0
    if not stat_.S_ISREG(st.st_mode):
        if on_entry is not None:
            raise NotRegularFile(
                errno.EINVAL, f"{below or src} in it is a FIFO, socket or device", below or src
            )
        os.mknod(dst, st.st_mode, st.st_rdev, dir_fd=dst_fd)
        return 0
    source = _open(src_fd, src, READ)
    try:
        if not stat_.S_ISREG(os.fstat(source).st_mode):
            raise Moved
        target = os.open(dst, _NEW, 0o600, dir_fd=dst_fd)
        try:
            size = copy_data(source, target)
            copy_metadata(source, target, times=True, privileges=on_entry is None)
        finally:
            os.close(target)
        return size
    finally:
        os.close(source)


def _copy_folder(src_fd: int, src: str, dst_fd: int, dst: str, on_entry: OnEntry | None, below: str) -> int:
    total = 0
    here = _open(src_fd, src, DIRECTORY)
    try:
        os.mkdir(dst, 0o700, dir_fd=dst_fd)
        there = os.open(dst, DIRECTORY, dir_fd=dst_fd)
        try:
            for name in os.listdir(here):
                path = f"{below}/{name}" if below else name
                if on_entry is not None:
                    on_entry(path, os.stat(name, dir_fd=here, follow_symlinks=False), here)
                total += copy_entry(here, name, there, name, on_entry, path)
            copy_metadata(here, there, times=True)
        finally:
            os.close(there)
    finally:
        os.close(here)
    return total


def _open(folder: int, name: str, flags: int) -> int:
    try:
        return os.open(name, flags, dir_fd=folder)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR, errno.ENXIO}:
            raise Moved from None
        raise


def remove_entry(folder: int, name: str, *, force: bool = False) -> None:
    """Remove a file, link or whole tree; a link is removed as itself and nothing is followed.

    Args:
        folder: descriptor of the folder.
        name: the name in it.
        force: whether the folder is ours alone: directories whose mode forbids it are opened up, and
            what is in them is moved up first, so that no depth of nesting takes more descriptors.
    """
    pending = [name]
    while pending:
        name = pending.pop()
        try:
            os.unlink(name, dir_fd=folder)
            continue
        except (IsADirectoryError, PermissionError) as error:
            if force:
                with suppress(OSError):
                    _open_up(folder, name)
            try:
                here = os.open(name, DIRECTORY, dir_fd=folder)
            except NotADirectoryError:
                raise error from None
        try:
            inner = _empty(here, folder, force=force)
        finally:
            os.close(here)
        os.rmdir(name, dir_fd=folder)
        pending += inner


def _empty(here: int, folder: int, *, force: bool) -> list[str]:
    """Empty a directory; gives the names in ``folder`` that inner directories were moved to."""
    moved = []
    for below in os.listdir(here):
        if not force:
            remove_entry(here, below)
            continue
        try:
            os.unlink(below, dir_fd=here)
        except (IsADirectoryError, PermissionError):
            with suppress(OSError):
                _open_up(here, below)  # a directory that may not be written cannot be moved either
            fresh = f"purge-{os.urandom(12).hex()}"
            os.rename(below, fresh, src_dir_fd=here, dst_dir_fd=folder)
            moved.append(fresh)
    return moved


def _open_up(folder: int, name: str) -> None:
    fd = os.open(name, PATH, dir_fd=folder)
    try:
        if stat_.S_ISDIR(os.fstat(fd).st_mode):
            os.chmod(f"/proc/self/fd/{fd}", 0o700)  # fchmod refuses an O_PATH descriptor
    finally:
        os.close(fd)


def demand_no_mount(folder: int, name: str) -> None:
    """Refuse a directory that is a mount point or holds one: removing it would reach into the mount.

    Decided by the kernel's list of mounts, not by st_dev, which bind mounts and overlays share.

    Raises:
        TrashError: it is, or does (EBUSY).
    """
    try:
        fd = os.open(name, DIRECTORY, dir_fd=folder)
    except OSError:
        return  # no directory, or closed to us: the rename tells
    try:
        path = os.fsencode(os.readlink(f"/proc/self/fd/{fd}"))
        with open("/proc/self/mountinfo", "rb") as mounts:
            points = [line.split(b" ", 5)[4] for line in mounts]
    except OSError:
        return  # no /proc here
    finally:
        os.close(fd)
    for point in points:
        # Spaces and the like are escaped in octal there.
        plain = point.decode("unicode_escape").encode("latin-1") if b"\\" in point else point
        if plain == path or plain.startswith(path + b"/"):
            raise TrashError(errno.EBUSY, "it is or holds a mount point; nothing was changed")
