"""The trash's own folder: opened, shielded, locked, listed, and brought in order after a crash.

``<root>/.fsjail/`` (mode 0700) holds::

    lock                    shared by changes, exclusive for recovery
    stage/                  content on its way
    Trash/info/ID.trashinfo what ID was: FreeDesktop Trash specification 1.0, own keys as X-Fsjail-*
    Trash/files/ID          the content
    .gitignore, .git/       so that "git clean -fdx" leaves the folder alone

Names inside are made here, never by an agent.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat as stat_
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fsjail._copying import remove_entry
from fsjail._errors import LimitExceeded, Moved, TrashError
from fsjail._root import reopen
from fsjail._selftest import DIRECTORY, HOW_DIRECTORY, READ, self_test
from fsjail._stage import rename_new, sync_folder
from fsjail._syscalls import openat2
from fsjail._trashinfo import INFO, TrashItem, damaged, make_info, parse_info

if TYPE_CHECKING:
    from collections.abc import Iterator


HOME = ".fsjail"
NAME_MAX = 255  # bytes
_TOKEN = re.compile(r"[0-9a-f]{24}").fullmatch
OUR_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}(-2)?").fullmatch
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# No hard link can be had: the file system has none, or the kernel protects a foreign file.
_NO_LINK = {errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES}


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something goes to the trash: its name in the root, the label, and on whose behalf."""

    path: str
    why: str
    actor: str | None


class TrashHome:
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
        self._mutex = threading.RLock()

    # ── the folder ─────────────────────────────────────────────────────────────────────────────

    def open(self, *, create: bool = True) -> bool:
        """Open the folder, making it at the first time, and recover after a crash.

        Returns:
            whether it is there.

        Raises:
            TrashError: it cannot be made or opened, or something else has its name.
        """
        with self._mutex:  # two threads may make the first change together
            if self._home >= 0:
                if os.fstat(self._stage).st_nlink:
                    return True
                self.close()  # removed under us: "git clean -x" was here
            return self._open_whole(create=create)

    def _open_whole(self, *, create: bool) -> bool:
        try:
            if not self._open(create=create):
                self.close()
                return False
            self._demand_own()
            fds = (self._home, self._stage, self._info, self._files)
            self.inodes = frozenset((st.st_dev, st.st_ino) for st in map(os.fstat, fds))
            with self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB) as held:
                if held:  # else another process is in the middle of a change, and alive
                    self._recover()
        except OSError as error:
            self.close()
            taken = error.errno in {errno.ENOTDIR, errno.ELOOP}
            reason = "a link or file has its name" if taken else error.strerror
            message = f"the trash folder {HOME}/ cannot be used: {reason}; nothing was changed"
            raise TrashError(error.errno or errno.EIO, message, HOME) from None
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

    def stage(self) -> int:
        """Descriptor of the private folder for content on its way."""
        self.open()
        return self._stage

    def close(self) -> None:
        """Let go of the folders; calling it again does nothing."""
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

    # ── looking in ─────────────────────────────────────────────────────────────────────────────

    def items(self) -> list[TrashItem]:
        """What the trash holds, newest first; damaged items too, with ``why="damaged"``."""
        if not self.open(create=False):
            return []
        found = []
        for name in os.listdir(self._files):
            with suppress(FileNotFoundError):  # restored or purged meanwhile
                found.append(self._item(name))
        found.sort(key=lambda item: (item.deleted_at, item.id), reverse=True)
        return found

    def item(self, identity: str) -> TrashItem:
        """One item.

        Raises:
            FileNotFoundError: there is none with this id.
        """
        bad = not identity or "/" in identity or "\0" in identity or identity in {".", ".."}
        if bad or len(os.fsencode(identity)) > NAME_MAX or not self.open(create=False):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), identity)
        return self._item(identity)

    def _item(self, identity: str) -> TrashItem:
        st = os.stat(identity, dir_fd=self._files, follow_symlinks=False)
        size = st.st_size
        if stat_.S_ISDIR(st.st_mode):
            try:
                size = self._size(identity)
            except (OSError, Moved):  # closed to us, or changed under us: it can be restored all the same
                size = 0
        try:
            text = _read(self._info, identity + INFO)
        except OSError:
            return damaged(identity, kind_of(st), size, st.st_ctime)
        return parse_info(text, identity, kind_of(st), size, st.st_ctime, self.real)

    def read(self, identity: str, most: int | None) -> bytes:
        """The content of a kept file.

        Raises:
            LimitExceeded: it is larger than ``most`` bytes.
        """
        fd = os.open(identity, READ, dir_fd=self._files)
        with os.fdopen(fd, "rb") as stream:
            size = os.fstat(fd).st_size
            if most is not None and size > most:
                raise LimitExceeded(errno.EFBIG, f"{size} bytes are over the limit of {most} for one read")
            return stream.read()

    def _size(self, identity: str) -> int:
        total = 0
        for name, st in self._below(identity):
            del name
            if st is not None:
                total += st.st_size
        return total

    def names_below(self, identity: str) -> Iterator[tuple[str, bool | None]]:
        """Relative names in a kept directory, with whether each is a directory (None for a link)."""
        for name, st in self._below(identity):
            link = st is not None and stat_.S_ISLNK(st.st_mode)
            yield name, None if link else st is None

    def _below(self, identity: str) -> Iterator[tuple[str, os.stat_result | None]]:
        """Relative names in a kept directory, with the lstat of what is no directory.

        Each directory is opened anew by its name, so that depth costs neither descriptors nor stack.
        """
        pending = [""]
        while pending:
            below = pending.pop()
            here = self._open_kept(f"{identity}/{below}" if below else identity)
            try:
                with os.scandir(here) as entries:
                    for entry in entries:
                        name = f"{below}/{entry.name}" if below else entry.name
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(name)
                            yield name, None
                        else:
                            yield name, entry.stat(follow_symlinks=False)
            finally:
                os.close(here)

    def _open_kept(self, name: str) -> int:
        """Open a directory in the trash; no component may be a link."""
        if self_test():
            try:
                return openat2(self._files, os.fsencode(name), HOW_DIRECTORY)
            except OSError as error:
                if error.errno not in {errno.ENAMETOOLONG, errno.ENOSYS, errno.EPERM}:
                    raise
        fd = reopen(self._files, name.split("/"))
        try:
            return os.open(".", DIRECTORY, dir_fd=fd)
        finally:
            os.close(fd)

    # ── recovery ─────────────────────────────────────────────────────────────────────

    def recover(self) -> list[str]:
        """Bring the folder in order after a crash, under the exclusive lock.

        Returns:
            a sentence for each thing that was done.
        """
        if not self.open(create=False):
            return []
        with self._lock(fcntl.LOCK_EX):
            return self._recover()

    def _recover(self) -> list[str]:
        """Look at all that a crash can have left; what cannot be mended now must not stop the jail."""
        done = []
        for name in os.listdir(self._stage):
            if not self._in_use(name):
                try:
                    done.append(self._recover_name(name))
                except OSError as error:
                    done.append(f"could not bring {name} in order: {error.strerror}")
        kept = set(os.listdir(self._files))
        for name in os.listdir(self._info):
            identity = name.removesuffix(INFO)
            if name.endswith(INFO) and identity not in kept and self._is_ours(name, identity):
                with suppress(OSError):
                    self._unlink(self._info, name)
                    done.append(f"removed the claim {identity}: nothing had been moved")
        return done

    def _is_ours(self, name: str, identity: str) -> bool:
        """Whether a claim is of fsjail: another trash program may be between its two steps right now."""
        if OUR_ID(identity):  # also one that a crash left empty
            return True
        try:
            return b"\nX-Fsjail-" in _read(self._info, name)
        except OSError:
            return False

    def _in_use(self, name: str) -> bool:
        """Whether somebody alive holds staged content, by its lock; see ``Staged``."""
        if not name.startswith("new-"):
            return False
        try:
            fd = os.open(name, READ, dir_fd=self._stage)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def _recover_name(self, name: str) -> str:
        if name.startswith("purge-"):
            remove_entry(self._stage, name, force=True)
            return f"ended the removal of {name[6:]}"
        if name.endswith(".beside"):
            return self._recover_beside(name)
        if name.endswith(".mark"):
            done = self._recover_unfinished(name.removesuffix(".mark"))
            self._unlink(self._stage, name)
            return done
        return self._recover_one(name)

    def _recover_beside(self, mark: str) -> str:
        """Remove what a crash left beside a name on another file system; its mark says in which folder."""
        place = os.fsdecode(_read(self._stage, mark))
        token = mark.removesuffix(".beside")
        if not _TOKEN(token):  # not made by us
            return f"left {mark} alone"
        name = f".fsjail-{token}"
        with suppress(OSError, Moved):  # the folder is gone, or has become a link
            folder = reopen(self._root, place.split("/") if place else [])
            try:
                remove_entry(folder, name)
            finally:
                os.close(folder)
        self._unlink(self._stage, mark)
        return f"removed an unfinished copy in {place or '.'}"

    def _recover_one(self, identity: str) -> str:
        """Bring one replacement to its end or its beginning: the inodes tell how far it came."""
        try:
            info = _read(self._info, identity + INFO)
        except FileNotFoundError:
            remove_entry(self._stage, identity)
            return f"removed unfinished new content {identity}"
        try:
            left = os.stat(identity, dir_fd=self._stage, follow_symlinks=False)
        except FileNotFoundError:
            return self._recover_unfinished(identity)
        if f"\nX-Fsjail-Staged={left.st_dev}:{left.st_ino}\n".encode() in info:
            remove_entry(self._stage, identity)
            return self._recover_unfinished(identity)
        try:
            kept = os.stat(identity, dir_fd=self._files, follow_symlinks=False)
        except FileNotFoundError:
            rename_new(self._stage, identity, self._files, identity)
        else:
            if same(kept, left):
                os.unlink(identity, dir_fd=self._stage)
            else:  # another program's content, caught by the exchange
                first = self._item(identity)
                item = self.claim(left, Reason(first.path, first.why, first.actor))
                rename_new(self._stage, identity, self._files, item.id, private=True)
        return f"finished keeping {identity}"

    def _recover_unfinished(self, identity: str) -> str:
        """Roll a change back whose old inode still has its live name; else it was done, and is kept."""
        try:
            kept = os.stat(identity, dir_fd=self._files, follow_symlinks=False)
        except FileNotFoundError:
            self.unclaim(identity)
            return f"removed the claim {identity}: nothing had been moved"
        try:
            live = os.stat(self.item(identity).path, dir_fd=self._root, follow_symlinks=False)
        except OSError:
            live = None
        if not same(kept, live):
            return f"kept {identity}: its name holds something else"
        os.unlink(identity, dir_fd=self._files)
        self.unclaim(identity)
        return f"rolled back {identity}: the old content has its name"


def kind_of(st: os.stat_result) -> str:
    """Name the type of a file: "file", "directory", "link" or "other"."""
    kinds = {stat_.S_IFREG: "file", stat_.S_IFDIR: "directory", stat_.S_IFLNK: "link"}
    return kinds.get(stat_.S_IFMT(st.st_mode), "other")


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


def _read(folder: int, name: str) -> bytes:
    """Read a small file of the trash; a FIFO planted there answers at once with nothing, a link fails."""
    fd = os.open(name, READ, dir_fd=folder)
    try:
        return os.read(fd, 1 << 16)
    finally:
        os.close(fd)
