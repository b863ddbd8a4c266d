"""What a name, or a descriptor, leads to by the kernel's own account; for the guard, which only looks on.

The folder that holds the name is opened and asked for its path, so no library function has to follow links:
``os.path.realpath`` can be led astray by a tree that is deeper than a path may be long (CVE-2025-4517).

Does not stop: a race. The answer is true for the moment of the question.
"""

from __future__ import annotations

import errno
import os
import re
import stat as stat_
import sys
from typing import Final

MAX_LINKS: Final = 40  # as Linux

# What holds a folder for a question, and needs no right to read it.
_LOOK: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_GETPATH: Final = 50  # macOS: fcntl(F_GETPATH)
_FDS: Final = re.compile(r"/proc/(\d+)(?:/task/\d+)?/fd\Z")


def of_fd(fd: int) -> str | None:
    """Give the absolute name of what a descriptor holds; None if it has no name, such as a pipe.

    Raises:
        OSError: this is no descriptor, or the system does not tell.
    """
    if sys.platform == "darwin":
        import fcntl  # noqa: PLC0415 - not everywhere

        found = os.fsdecode(fcntl.fcntl(fd, _GETPATH, bytes(1024)).partition(b"\0")[0])
    else:
        found = os.readlink(f"/proc/self/fd/{fd}")
    if not found.startswith("/"):
        return None
    # Of a file without a name the text is its last name with " (deleted)" behind it, which a name can have.
    return found if os.fstat(fd).st_nlink else None


def of_path(path: str, *, follow: bool) -> str | None:
    """Give the absolute name that the kernel reaches by a name; None if it has no name, such as a pipe.

    Args:
        path: absolute; ".." and links mean what they mean to the kernel.
        follow: whether a link at the last component is followed.

    Raises:
        OSError: the folder that holds the name cannot be reached, or its path is too long to be told.
    """
    for _ in range(MAX_LINKS):
        head, _, leaf = path.rstrip("/").rpartition("/")
        if leaf in {"", ".", ".."}:
            return _folder(path)[0]
        folder, own = _folder(head or "/")
        place = f"{folder.rstrip('/')}/{leaf}"
        if own and leaf.isdecimal():
            return of_fd(int(leaf)) if follow else place
        if not (follow or path.endswith("/")):
            return place
        try:
            text = os.readlink(place)
        except OSError as error:
            if error.errno in {errno.EINVAL, errno.ENOENT}:  # no link; nothing there
                return place
            raise
        path = text if text.startswith("/") else f"{folder}/{text}"
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _folder(path: str) -> tuple[str, bool]:
    """The path of a folder, and whether it is the table of this process's own descriptors."""
    fd = os.open(path, _LOOK)
    try:
        found = of_fd(fd)
    finally:
        os.close(fd)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    table = _FDS.match(found)
    return found, table is not None and int(table[1]) == os.getpid()


def is_folder(path: str) -> bool:
    """Whether a name leads to a directory now."""
    try:
        return stat_.S_ISDIR(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def is_there(path: str) -> bool:
    """Whether a name leads to anything now."""
    try:
        os.stat(path)
    except (OSError, ValueError):
        return False
    return True
