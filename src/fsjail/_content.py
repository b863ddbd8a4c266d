"""Reading and changing content through a judged target: what an operation does once it is allowed."""

from __future__ import annotations

import codecs
import errno
import os
import stat as stat_
import time
from typing import TYPE_CHECKING

from fsjail._copying import copy_data
from fsjail._errors import LimitExceeded, Moved, NotRegularFile, OutOfBounds
from fsjail._selftest import READ
from fsjail._stage import Staged, sync_folder
from fsjail._trash import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsjail._limits import Limits
    from fsjail._root import Target
    from fsjail._trash import TrashStore
    from fsjail._trashinfo import TrashItem

_CHUNK = 1 << 20
# Encodings in which the byte 0x0A is a line end and nothing else.
_BYTEWISE = {"utf-8", "utf-8-sig", "ascii", "iso8859-1", "iso8859-15", "cp1252"}


def demand_regular(st: os.stat_result | None) -> os.stat_result:
    """Give the stat of a file with data.

    Raises:
        FileNotFoundError, IsADirectoryError: it is none.
        NotRegularFile: a FIFO, socket or device, which could block or never end.
    """
    if st is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    if stat_.S_ISDIR(st.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat_.S_ISREG(st.st_mode):
        raise NotRegularFile(errno.EINVAL, "it is a FIFO, socket or device, not a file with data")
    return st


def read_range(target: Target, offset: int, limit: int | None, most: int | None) -> bytes:
    """Read a part of an opened file.

    Args:
        target: opened for reading.
        offset: first byte.
        limit: number of bytes, None for all.
        most: the limit of the jail, in bytes.

    Raises:
        LimitExceeded: more than ``most`` bytes would be read; none was.
    """
    size = demand_regular(target.st).st_size
    if offset < 0 or (limit is not None and limit < 0):
        message = "offset and limit must not be negative"
        raise ValueError(message)
    if size and offset >= size:
        return b""
    want = max(0, size - offset)
    if limit is not None:
        want = min(want, limit)
    if most is not None and want > most:
        raise _too_much(size, most)
    if offset:
        os.lseek(target.fd, offset, os.SEEK_SET)
    if limit is None:
        want += 1  # one more than its size: tells the end of the file in the same call
    data = os.read(target.fd, want) if want else b""
    if len(data) == want - 1 and limit is None:
        return data
    # A short read, or the file grew since (or is one of /proc, whose size is 0).
    parts, got = [data], len(data)
    while data and (limit is None or got < limit):
        data = os.read(target.fd, _CHUNK if limit is None else limit - got)
        parts.append(data)
        got += len(data)
        if most is not None and got > most:
            raise _too_much(got, most)
    return b"".join(parts)


def read_lines(target: Target, start: int, count: int | None, encoding: str, limits: Limits) -> list[str]:
    """Read lines of an opened file, no further than the last one wanted; without their ends.

    Raises:
        LimitExceeded: the lines are over ``max_read_bytes``, or finding them takes over ``max_seconds``.
        UnicodeDecodeError: they are not text.
    """
    demand_regular(target.st)
    if start < 1 or (count is not None and count < 0):
        message = "start counts from 1, and count must not be negative"
        raise ValueError(message)
    most = limits.max_read_bytes
    if codecs.lookup(encoding).name not in _BYTEWISE:
        return _read_wide_lines(target, start, count, encoding, most)
    until = None if limits.max_seconds is None else time.monotonic() + limits.max_seconds
    lines: list[str] = []
    got = number = 0
    cap = _CHUNK if most is None else min(most + 1, _CHUNK)
    rest = b""
    with os.fdopen(os.dup(target.fd), "rb") as stream:
        while count is None or len(lines) < count:
            if until is not None and time.monotonic() > until:
                message = f"the lines were not found within {limits.max_seconds} seconds"
                raise LimitExceeded(errno.ETIMEDOUT, message)
            line = stream.readline(cap)
            whole = line.endswith(b"\n") or not line
            if number + 1 >= start:
                got += len(line)
                if most is not None and got > most:
                    raise _too_much(got, most)
                rest += line
                if whole and (rest or line):
                    lines.append(decode(rest.removesuffix(b"\n").removesuffix(b"\r"), encoding))
                    rest = b""
            if not line:
                break
            number += line.endswith(b"\n")
    return lines


def _read_wide_lines(
    target: Target, start: int, count: int | None, encoding: str, most: int | None
) -> list[str]:
    """The same where a line end is more than one byte; the limit is counted in characters."""
    lines: list[str] = []
    got, skip = 0, start - 1
    cap = -1 if most is None else most + 1
    with os.fdopen(os.dup(target.fd), "r", encoding=encoding, newline="\n") as stream:
        while (count is None or len(lines) < count) and (line := stream.readline(cap)):
            if skip:
                skip -= line.endswith("\n")
                continue
            got += len(line)
            if most is not None and got > most:
                raise _too_much(got, most)
            lines.append(line.removesuffix("\n").removesuffix("\r"))
    return lines


def decode(data: bytes, encoding: str) -> str:
    """Decode strictly; the error says that the bytes can be had with read_bytes."""
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        error.reason += " (not text in this encoding; read_bytes gives the raw bytes)"
        raise


def demand_writable(target: Target) -> None:
    """Refuse what open(2) for writing would refuse, though replacing the name would work.

    Raises:
        IsADirectoryError, NotRegularFile: not a file.
        PermissionError: a file that its owner has made read-only.
    """
    if target.st is None:
        if target.must_dir:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return
    demand_regular(target.st)
    try:
        # Opened without O_TRUNC and closed again: the kernel says whether it could be written.
        os.close(target.open(os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY))
    except FileNotFoundError:
        raise Moved from None
    except OSError as error:
        if error.errno != errno.ETXTBSY:  # a running program: its name can be given another file
            raise


def place(
    store: TrashStore, target: Target, new: Staged, why: str, actor: str | None, like: int | None = None
) -> TrashItem | None:
    """Give finished content its name; what had the name goes to the trash.

    ``like`` is a descriptor whose metadata a new file takes; an old file's own goes before it.

    Raises:
        Moved: the name holds something else than what was judged.
    """
    if target.st is None:
        target.left = new.finish(like, durable=store.durable, times=True)
        try:
            try:
                new.name_as(target.parent, target.leaf)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                store.place_across(new, target)
        except FileExistsError:
            raise Moved from None
        sync_folder(target.parent, durable=store.durable)
        return None
    old = _open_old(target)
    try:
        target.left = new.finish(old, durable=store.durable)
    finally:
        os.close(old)
    return store.replace(target, new, Reason(target.name, why, actor))


def _open_old(target: Target) -> int:
    try:
        return target.open(READ)
    except PermissionError:  # writable but not readable: mode and owner can still be had
        return target.open(getattr(os, "O_PATH", os.O_RDONLY))


def copy_file(store: TrashStore, source: Target, target: Target, actor: str | None) -> TrashItem | None:
    """Copy an opened file to where a target leads; times are kept too."""
    demand_regular(source.st)
    with Staged(target.parent, store.stage) as new:
        copy_data(source.fd, new.fd)
        return place(store, target, new, "overwritten", actor, source.fd)


def copy_tree(
    store: TrashStore,
    source: Target,
    target: Target,
    judge: Callable[[str, bool | None], None],
    spend: Callable[[int], None],
) -> int:
    """Copy a directory: built whole where it is not seen, then renamed in.

    ``judge`` is called with each relative name and whether it is a directory, ``spend`` with the size
    of each file, before it is copied.

    Returns:
        bytes copied.
    """

    def on_entry(path: str, st: os.stat_result, folder: int) -> None:
        link = stat_.S_ISLNK(st.st_mode)
        judge(path, None if link else stat_.S_ISDIR(st.st_mode))
        if stat_.S_ISREG(st.st_mode):
            spend(st.st_size)
        if link:
            _demand_inner(os.readlink(path.rpartition("/")[2], dir_fd=folder), path)

    # The opened directory itself is what was judged: "." of it cannot be swapped.
    return store.bring(source.fd, ".", target, on_entry)


def _demand_inner(text: str, path: str) -> None:
    """A new link that leads out of the copied tree would be followed by programs outside the jail."""
    if text.startswith("/") or text.split("/").count("..") > path.count("/"):
        raise OutOfBounds(errno.EXDEV, f"the link {path} in it leads out of the copied directory", path)


def _too_much(size: int, most: int) -> LimitExceeded:
    return LimitExceeded(
        errno.EFBIG, f"{size} bytes are over the limit of {most} bytes for one read; read a part of it"
    )
