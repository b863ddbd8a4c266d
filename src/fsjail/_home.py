"""The trash's own folder: opened, shielded, locked, and its info files.

``<root>/.fsjail/`` (mode 0700) holds::

    lock                    shared by changes, exclusive for recovery
    stage/                  content on its way
    Trash/info/ID.trashinfo what ID was: FreeDesktop Trash specification 1.0, own keys as X-Fsjail-*
    Trash/files/ID          the content
    .gitignore, Trash/.git/ so that git leaves it alone

Names inside are made here, never by an agent.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat as stat_
import threading
import time
from abc import ABC, abstractmethod
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fsjail._copying import remove_entry
from fsjail._errors import Moved, TrashError
from fsjail._selftest import DIRECTORY, READ
from fsjail._stage import sync_folder
from fsjail._trashinfo import INFO, TrashItem, make_info

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


HOME = ".fsjail"
_KINDS = {stat_.S_IFREG: "file", stat_.S_IFDIR: "directory", stat_.S_IFLNK: "link"}
NAME_MAX = 255  # bytes
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something goes to the trash: its name in the root, the label, and on whose behalf."""

    path: str
    why: str
    actor: str | None


class TrashHome(ABC):
    """The folder of one jail. Opened at the first change; ``root`` is a held directory.

    Args:
        root: descriptor of the root.
        real: the root's real path, for the ``Path=`` key.
        location: another folder for the trash, or None for ``.fsjail`` in the root.
        durable: whether changes are synced to the disk.
    """

    def __init__(self, root: int, real: str, *, location: str | None = None, durable: bool = True) -> None:
        self._root = root
        self.real = real
        self._location = location
        self.durable = durable
        self._home = self._stage = self._info = self._files = -1
        # Device and inode of the folders, so that another name for them is refused too.
        self.inodes: frozenset[tuple[int, int]] = frozenset()
        self._swept = False
        self._mutex = threading.RLock()

    # ── the folder ─────────────────────────────────────────────────────────────────────────────

    def open(self, *, create: bool = True) -> bool:
        """Open the folder, making it at the first time, and recover after a crash.

        What a crash left on its way is brought in order at once. Info files of nothing are looked
        for when something is kept: nobody sees them, and among 100,000 items that takes a while.

        Returns:
            whether it is there.

        Raises:
            TrashError: it cannot be made or opened, or something else has its name.
        """
        with self._mutex:  # two threads may make the first change together
            try:
                return self._open_whole(create=create)
            except OSError as error:
                taken = error.errno in {errno.ENOTDIR, errno.ELOOP}
                reason = "a link or file has its name" if taken else error.strerror
                message = f"the trash folder {HOME}/ cannot be used: {reason}; nothing was changed"
                raise TrashError(error.errno or errno.EIO, message, HOME) from None

    def _open_whole(self, *, create: bool) -> bool:
        if self._home >= 0 and not os.fstat(self._stage).st_nlink:
            self.close()  # removed under us: "git clean -x" was here
        if self._home < 0:
            try:
                if not self._open(create=create):
                    self.close()
                    return False
                self._demand_own()
                fds = (self._home, self._stage, self._info, self._files)
                self.inodes = frozenset((st.st_dev, st.st_ino) for st in map(os.fstat, fds))
                self._if_alone(self._recover)
            except OSError:
                self.close()
                raise
        if create and not self._swept:
            self._if_alone(self._sweep)
            self._swept = True
        return True

    def _open(self, *, create: bool) -> bool:
        if self._location is not None:
            if create:
                os.makedirs(self._location, 0o700, exist_ok=True)
            elif not os.access(self._location, os.X_OK):
                return False
            self._home = os.open(self._location, DIRECTORY)
        else:
            home = self._folder(self._root, HOME, create=create)
            if home is None:
                return False
            self._home = home
        trash = self._folder(self._home, "Trash", create=create)
        if trash is None:
            return False
        try:
            for attribute, parent, name in (
                ("_stage", self._home, "stage"),
                ("_info", trash, "info"),
                ("_files", trash, "files"),
            ):
                # Where there is a trash its parts are made anew: "git clean -x" takes the stage.
                setattr(self, attribute, self._folder(parent, name, create=True))
        finally:
            os.close(trash)
        return True

    def _demand_own(self) -> None:
        """The folder must be ours, or the root's owner's, and closed to everybody else."""
        st = os.fstat(self._home)
        if st.st_uid not in {os.geteuid(), os.stat(".", dir_fd=self._root).st_uid}:
            raise PermissionError(errno.EACCES, "it belongs to somebody else")
        if st.st_mode & 0o077 and st.st_uid == os.geteuid():
            os.fchmod(self._home, 0o700)

    @staticmethod
    def _folder(parent: int, name: str, *, create: bool) -> int | None:
        try:
            return os.open(name, DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            if not create:
                return None
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
        return os.open(name, DIRECTORY, dir_fd=parent)

    def _shield(self) -> None:
        """Make git pass the folder by.

        ``.gitignore`` keeps "git status" and "git add" silent; an empty repository in ``Trash`` makes
        "git clean -fdx" skip it. (One in the whole folder would make "git add -A" fail: a repository
        without a commit cannot be added.)
        """
        with suppress(FileExistsError):
            write_new(self._home, ".gitignore", b"*\n", NEW)
        trash = os.open("Trash", DIRECTORY, dir_fd=self._home)
        try:
            with suppress(FileExistsError):
                os.mkdir(".git", 0o700, dir_fd=trash)
                git = os.open(".git", DIRECTORY, dir_fd=trash)
                try:
                    os.mkdir("objects", 0o700, dir_fd=git)
                    os.mkdir("refs", 0o700, dir_fd=git)
                    write_new(git, "HEAD", b"ref: refs/heads/main\n", NEW)
                finally:
                    os.close(git)
        finally:
            os.close(trash)

    def _if_alone(self, mend: Callable[[], list[str]]) -> None:
        """Mend under the exclusive lock, unless another process is in the middle of a change, and alive."""
        with self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB) as held:
            if held:
                mend()

    @abstractmethod
    def _recover(self) -> list[str]:
        """Bring what was on its way in order after a crash; see ``Recovery``."""

    @abstractmethod
    def _sweep(self) -> list[str]:
        """Remove the info files of nothing; see ``Recovery``."""

    def stage(self) -> int:
        """Descriptor of the private folder for content on its way."""
        self.open()
        return self._stage

    def close(self) -> None:
        """Let go of the folders; calling it again does nothing."""
        self._swept = False
        for attribute in ("_home", "_stage", "_info", "_files"):
            fd = getattr(self, attribute)
            setattr(self, attribute, -1)
            if fd >= 0:
                os.close(fd)

    @contextmanager
    def _lock(self, how: int) -> Iterator[bool]:
        # A descriptor of its own each time: a flock belongs to the open file, so that threads and
        # forked children would otherwise let go of each other's.
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open("lock", flags, dir_fd=self._home)
        except FileNotFoundError:  # the first time, or "git clean -x" was here
            self._shield()
            fd = os.open("lock", flags | os.O_CREAT, 0o600, dir_fd=self._home)
        try:
            try:
                fcntl.flock(fd, how)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(fd)

    # ── info files ─────────────────────────────────────────────────────────────────────────────

    def claim(
        self, st: os.stat_result | None, reason: Reason, *, staged: os.stat_result | None = None
    ) -> TrashItem:
        """Create an info file under a new id, whole and durable before anything moves."""
        if st is None:
            raise Moved
        now = time.time_ns()
        while True:
            identity = time.strftime("%Y%m%d-%H%M%S-", time.localtime(now / 1e9)) + os.urandom(4).hex()
            item = TrashItem(
                identity,
                reason.path,
                datetime.fromtimestamp(now / 1e9, UTC),
                reason.why,
                reason.actor,
                st.st_size if stat_.S_ISREG(st.st_mode) else 0,
                kind_of(st),
            )
            with suppress(FileExistsError):
                text = make_info(item, self.real, now, staged)
                write_new(self._info, identity + INFO, text, NEW, durable=self.durable)
                return item

    def holds(self, identity: str) -> bool:
        """Whether there is content under an id; an error while looking counts as yes."""
        try:
            os.stat(identity, dir_fd=self._files, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True

    def unclaim(self, identity: str) -> None:
        self._unlink(self._info, identity + INFO)

    @staticmethod
    def _unlink(folder: int, name: str) -> None:
        with suppress(FileNotFoundError):
            remove_entry(folder, name)  # somebody may have put a directory there

    def _sync(self, *folders: int) -> None:
        for folder in (*folders, self._info):
            if folder >= 0:
                sync_folder(folder, durable=self.durable)


def kind_of(st: os.stat_result) -> str:
    """Name the type of a file: "file", "directory", "link" or "other"."""
    return _KINDS.get(stat_.S_IFMT(st.st_mode), "other")


def lstat(name: str, folder: int) -> os.stat_result:
    return os.stat(name, dir_fd=folder, follow_symlinks=False)


def same(one: os.stat_result | None, other: os.stat_result | None) -> bool:
    if one is None or other is None:
        return False
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def write_new(folder: int, name: str, text: bytes, flags: int, *, durable: bool = False) -> None:
    fd = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        view = memoryview(text)
        while view:
            view = view[os.write(fd, view) :]
        if durable:
            os.fsync(fd)
    except BaseException:
        os.unlink(name, dir_fd=folder)
        raise
    finally:
        os.close(fd)


def read_info(folder: int, name: str) -> bytes:
    """Read a small file of the trash; a FIFO planted there answers at once with nothing, a link fails."""
    fd = os.open(name, READ, dir_fd=folder)
    try:
        return os.read(fd, 1 << 16)
    finally:
        os.close(fd)
