"""Tries out what this machine and one folder can do; what was made is removed again."""

# ruff: noqa: PLC0415 - the jail is imported when it is tried

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fsjail import _syscalls
from fsjail._errors import JailError, NotRegularFile, OutOfBounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A folder of this name is made in the root for a moment.
_SCRATCH = ".fsjail-doctor-"
_FIRST, _SECOND = b"first", b"second"


@dataclass(frozen=True, slots=True)
class Ability:
    """One thing that was tried.

    Attributes:
        name: what it is.
        works: whether it did.
        needed: whether a jail cannot keep its promises without it.
        note: what it is good for, or what happened instead.
    """

    name: str
    works: bool
    needed: bool
    note: str


def abilities() -> list[Ability]:
    """Tell what this machine can do; nothing is written."""
    return [_resolver(), _openat2()]


def _resolver() -> Ability:
    from fsjail._root import Root

    try:
        Root("/").close()
    except OSError as error:
        return Ability("names resolved safely", works=False, needed=True, note=_why(error))
    return Ability("names resolved safely", works=True, needed=True, note="self-test of the resolver passed")


def _openat2() -> Ability:
    how = _syscalls.how(os.O_RDONLY | os.O_CLOEXEC, _syscalls.RESOLVE_BENEATH)
    slash = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(_syscalls.openat2(slash, b".", how))
    except OSError as error:
        return Ability("openat2", works=False, needed=False, note=f"{_why(error)}; the slower walk is used")
    finally:
        os.close(slash)
    forced = os.environ.get("FSJAIL_RESOLVER") == "walk"
    note = "FSJAIL_RESOLVER=walk turns it off" if forced else "one system call resolves and opens a name"
    return Ability("openat2", works=True, needed=False, note=note)


@contextmanager
def scratch(root: str) -> Iterator[str]:
    """Make a folder in the root for the time of the probes.

    Args:
        root: the root's path.

    Yields:
        The folder's path.

    Raises:
        OSError: the root cannot be written by the user who asks.
    """
    import shutil
    import tempfile

    folder = tempfile.mkdtemp(prefix=_SCRATCH, dir=root)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def of_folder(folder: str) -> list[Ability]:
    """Try a scratch folder: what its file system can do, then a whole jail in it."""
    return [
        _tried(
            "rename without replacing",
            _no_replace,
            folder,
            "a name that appears meanwhile is never overwritten",
        ),
        _tried("unnamed temporary files", _unnamed, folder, "a crash while writing leaves nothing behind"),
        _tried("hard links", _links, folder, "the old version of a file is kept without a copy"),
        _tried("named pipes", _pipe, folder, "one is refused at once, it cannot hang an agent"),
        _tried(
            "nothing is lost", _round_trip, folder, "overwritten and deleted content came back", needed=True
        ),
        _tried(
            "nothing leads out",
            _escapes,
            folder,
            "../, absolute names and links out were refused",
            needed=True,
        ),
    ]


def _tried(
    name: str, probe: Callable[[str], None], folder: str, note: str, *, needed: bool = False
) -> Ability:
    own = os.path.join(folder, probe.__name__)
    try:
        os.mkdir(own)
        probe(own)
    except (JailError, OSError) as error:
        return Ability(name, works=False, needed=needed, note=_why(error))
    return Ability(name, works=True, needed=needed, note=note)


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _put(path: str, data: bytes = b"") -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def _no_replace(folder: str) -> None:
    _put(f"{folder}/one")
    _put(f"{folder}/two")
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _syscalls.renameat2(fd, "one", fd, "three", _syscalls.RENAME_NOREPLACE)
        try:
            _syscalls.renameat2(fd, "two", fd, "three", _syscalls.RENAME_NOREPLACE)
        except FileExistsError:
            return
    finally:
        os.close(fd)
    raise OSError(None, "the file system replaced a name although it was told not to")


def _unnamed(folder: str) -> None:
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None:
        raise OSError(None, "this system has none")
    fd = os.open(folder, flag | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    home = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Only with a descriptor does Python 3.11 follow the link that leads to the unnamed file.
        os.link(f"/proc/self/fd/{fd}", "named", dst_dir_fd=home, follow_symlinks=True)
    finally:
        os.close(home)
        os.close(fd)


def _links(folder: str) -> None:
    _put(f"{folder}/one")
    os.link(f"{folder}/one", f"{folder}/two", follow_symlinks=False)


def _pipe(folder: str) -> None:
    from fsjail import Jail

    os.mkfifo(f"{folder}/pipe")
    with Jail(folder, state=f"{folder}/state") as jail:
        try:
            jail.read_bytes("pipe")
        except NotRegularFile:
            return
    raise OSError(None, "a pipe was read")


def _round_trip(folder: str) -> None:
    from fsjail import Jail, Policy

    os.mkdir(f"{folder}/root")
    with Jail(f"{folder}/root", Policy.workspace(), state=f"{folder}/state") as jail:
        jail.write_bytes("a", _FIRST)
        saved = jail.write_bytes("a", _SECOND).saved
        if saved is None or jail.read_bytes("a") != _SECOND:
            raise OSError(None, "an overwritten file was not kept")
        jail.trash.restore(saved.id, to="b")
        gone = jail.delete("a").saved
        if gone is None or jail.exists("a") or jail.read_bytes("b") != _FIRST:
            raise OSError(None, "a deleted file was not kept")
        jail.trash.restore(gone.id)
        if jail.read_bytes("a") != _SECOND:
            raise OSError(None, "a restored file has other content")


def _escapes(folder: str) -> None:
    from fsjail import Jail

    os.mkdir(f"{folder}/root")
    _put(f"{folder}/outside", _FIRST)
    os.symlink("../outside", f"{folder}/root/link")
    with Jail(f"{folder}/root", state=f"{folder}/state") as jail:
        for name in ("../outside", f"{folder}/outside", "link"):
            try:
                jail.read_bytes(name)
            except OutOfBounds:
                continue
            raise OSError(None, f"{name!r} was read")


def same_device(folder: str, home: str) -> Ability:
    """Try whether a file can be moved into the trash folder with one rename.

    Args:
        folder: a scratch folder in the root.
        home: the trash folder; it need not exist.
    """
    name = "trash on the same disk"
    if not os.path.isdir(home):
        return Ability(name, works=True, needed=False, note="the trash is made with the first change")
    source, target = f"{folder}/moved", os.path.join(home, os.path.basename(folder))
    try:
        _put(source)
        os.rename(source, target)
        os.unlink(target)
    except OSError as error:
        # Tried and not compared by device number: bind mounts and overlays lie about that.
        return Ability(name, works=False, needed=False, note=f"{_why(error)}; deleted files are copied")
    return Ability(name, works=True, needed=False, note="a delete is one rename, whatever the size")
