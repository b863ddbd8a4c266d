"""The start-up self-test, and the flag sets that it proves."""

from __future__ import annotations

import errno
import os
import stat as stat_

from fsjail._syscalls import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, how, openat2

O_PATH = getattr(os, "O_PATH", os.O_RDONLY | os.O_NONBLOCK)
PATH = O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO must not wait for its other end; O_NOCTTY: a terminal must not be adopted.
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_STRICT = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
HOW_READ = how(READ, _STRICT)
HOW_DIRECTORY = how(os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, _STRICT)
HOW_PARENT = how(O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, _STRICT)

_answer: list[bool] = []


def self_test() -> bool:
    """Prove once per process that this machine's primitives behave; < 1 ms, nothing is written.

    Returns:
        whether openat2 can be used.

    Raises:
        OSError: links or ".." are not told apart here (``ENOTSUP``); no jail is safe then.
    """
    if _answer:
        return _answer[0]
    if os.name != "posix" or os.open not in os.supports_dir_fd:
        raise OSError(errno.ENOTSUP, "fsjail needs a POSIX system with openat(2); it does not run here")
    links = ("/proc/self", "/dev/fd", "/bin", "/etc/mtab")
    known = next((path for path in links if os.path.islink(path)), None)
    slash = os.open("/", getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if known is not None and hasattr(os, "O_PATH"):
            link = os.open(known[1:], PATH, dir_fd=slash)
            try:
                good = stat_.S_ISLNK(os.fstat(link).st_mode)
                good = good and bool(os.readlink("", dir_fd=link))
            finally:
                os.close(link)
            if not good:
                raise OSError(errno.ENOTSUP, "O_PATH | O_NOFOLLOW follows links here; no jail is safe")
        _answer.append(_openat2_behaves(slash, known))
    finally:
        os.close(slash)
    return _answer[0]


def _openat2_behaves(slash: int, known: str | None) -> bool:
    """Whether openat2 exists, opens plain names, and refuses ".." and links."""
    try:
        os.close(openat2(slash, b".", HOW_DIRECTORY))
    except OSError:
        return False
    refusals = [(b"..", errno.EXDEV)]
    if known is not None:
        refusals.append((os.fsencode(known[1:]), errno.ELOOP))
    for name, answer in refusals:
        try:
            fd = openat2(slash, name, HOW_READ)
        except OSError as error:
            if error.errno != answer:
                return False
        else:
            os.close(fd)
            return False
    return True


def turn_off() -> None:
    """Use openat2 no more in this process: the kernel has turned out not to have it."""
    _answer[:] = [False]
