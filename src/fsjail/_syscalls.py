"""Linux system calls that Python's ``os`` lacks: ``openat2``, ``renameat2`` and ``syncfs``.

They go through ctypes: 0.6 µs a call, no compiled dependency. Numbers and structures are from
the kernel's ``include/uapi/linux/openat2.h`` and ``fs.h``. On other systems the names exist and
raise ``OSError(ENOSYS)``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from functools import partial
from typing import Any

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

_SYS_OPENAT2 = 437
# renameat2 has a libc wrapper since glibc 2.28; the numbers serve older ones and musl.
_SYS_RENAMEAT2 = {"x86_64": 316, "aarch64": 276, "riscv64": 276, "armv7l": 382, "ppc64le": 357, "s390x": 347}


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_libc: Any = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_HOW_SIZE = ctypes.sizeof(_OpenHow)


def _entry(name: str, number: int | None, *arguments: Any) -> Any:
    """Find a libc wrapper, or a call by number, or None; without argument types the values decide."""
    if _libc is None:  # pragma: no cover - not Linux
        return None
    function = getattr(_libc, name, None)
    if function is not None:
        if arguments:
            function.argtypes = arguments
        return function
    if number is None:  # pragma: no cover - unknown architecture
        return None
    raw = ctypes.CDLL(None, use_errno=True).syscall
    raw.restype = ctypes.c_long
    if arguments:
        raw.argtypes = (ctypes.c_long, *arguments)
    return partial(raw, number)


# No argument types: checking them takes a fifth of the whole call, and every read makes one. Integers, bytes
# and references are passed as the kernel wants them.
_openat2 = _entry("openat2", _SYS_OPENAT2)
_renameat2 = _entry(
    "renameat2",
    _SYS_RENAMEAT2.get(os.uname().machine) if hasattr(os, "uname") else None,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_uint,
)


_syncfs = _entry("syncfs", None, ctypes.c_int)


def how(flags: int, resolve: int) -> Any:
    """Build the constant third argument of :func:`openat2`; once per flag set, at import."""
    return ctypes.byref(_OpenHow(flags, 0, resolve))


def openat2(dir_fd: int, path: bytes, how_: Any) -> int:
    """Open ``path`` below ``dir_fd`` under the rules of ``how_``.

    Raises:
        OSError: as openat2(2); ``ENOSYS`` where the kernel or system has no such call.
    """
    if _openat2 is None:  # pragma: no cover - not Linux
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    while True:
        fd: int = _openat2(dir_fd, path, how_, _HOW_SIZE)
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        # EAGAIN: a rename raced with the look-up somewhere on the system; EINTR: a slow file system.
        if number not in {errno.EAGAIN, errno.EINTR}:
            raise OSError(number, os.strerror(number))


def renameat2(src_fd: int, src: str, dst_fd: int, dst: str, flags: int) -> None:
    """Rename with ``RENAME_NOREPLACE`` or ``RENAME_EXCHANGE``.

    Raises:
        OSError: as renameat2(2); ``ENOSYS`` or ``EINVAL`` where it cannot be had.
    """
    if _renameat2 is None:  # pragma: no cover - not Linux
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    while _renameat2(src_fd, os.fsencode(src), dst_fd, os.fsencode(dst), flags) != 0:
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def syncfs(fd: int) -> None:
    """Write all of one file system to its disk; where the call is missing, of all of them."""
    if _syncfs is None:  # pragma: no cover - not Linux
        os.sync()
        return
    while _syncfs(fd) != 0:
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
