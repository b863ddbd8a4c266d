"""Bringing the trash in order after a crash.

The states that a crash leaves stand beside the steps, in ``_trash`` and ``_across``.
"""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import suppress

from fsjail._copying import copy_entry, remove_entry
from fsjail._errors import Moved
from fsjail._home import Reason, kind_of, read_info, same
from fsjail._kept import KeptItems
from fsjail._root import reopen
from fsjail._selftest import READ
from fsjail._stage import rename_new
from fsjail._trashinfo import INFO, parse_info

# Names that fsjail gives: of its items, and beside a name on another file system.
_OUR_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}").fullmatch
_TOKEN = re.compile(r"[0-9a-f]{24}").fullmatch


class Recovery(KeptItems):
    """Ending or rolling back what was under way: names and inodes tell how far it came."""

    def recover(self) -> list[str]:
        """Bring the folder in order after a crash, under the exclusive lock.

        Returns:
            a sentence for each thing that was done.
        """
        if not self.open(create=False):
            return []
        with self._lock(fcntl.LOCK_EX):
            return self._recover() + self._sweep()

    def _recover(self) -> list[str]:
        """Look at all that a crash can have left on its way; what cannot be mended must not stop the jail."""
        done = []
        for name in os.listdir(self._stage):
            if not self._in_use(name):
                try:
                    done.append(self._recover_name(name))
                except OSError as error:
                    done.append(f"could not bring {name} in order: {error.strerror}")
        return done

    def _sweep(self) -> list[str]:
        """Remove the info files that a crash left before anything had been moved."""
        done = []
        claims = set(os.listdir(self._info))
        claims.difference_update([name + INFO for name in os.listdir(self._files)])
        for name in claims:
            identity = name.removesuffix(INFO)
            if name.endswith(INFO) and self._is_ours(name, identity):
                with suppress(OSError):
                    self._unlink(self._info, name)
                    done.append(f"removed the claim {identity}: nothing had been moved")
        return done

    def _is_ours(self, name: str, identity: str) -> bool:
        """Whether a claim is of fsjail: another trash program may be between its two steps right now."""
        if _OUR_ID(identity):  # also one that a crash left empty
            return True
        try:
            return b"\nX-Fsjail-" in read_info(self._info, name)
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
        token = mark.removesuffix(".beside")
        if not _TOKEN(token):  # not made by us
            return f"left {mark} alone"
        place, _, identity = os.fsdecode(read_info(self._stage, mark)).partition("\0")
        name = f".fsjail-{token}"
        try:
            folder = reopen(self._root, place.split("/") if place else [])
        except (FileNotFoundError, NotADirectoryError, Moved):  # the folder is gone, or has become a link
            self._unlink(self._stage, mark)
            return f"nothing is left beside in {place or '.'}"
        try:
            if identity:
                self._keep_stranger(folder, name, identity)
            with suppress(FileNotFoundError):
                remove_entry(folder, name)
        finally:
            os.close(folder)
        self._unlink(self._stage, mark)
        return f"removed an unfinished copy in {place or '.'}"

    def _keep_stranger(self, folder: int, name: str, identity: str) -> None:
        """Keep what the exchange caught, if it is neither the new content nor the old that was copied."""
        try:
            left = os.stat(name, dir_fd=folder, follow_symlinks=False)
            info = read_info(self._info, identity + INFO)
            kept = os.stat(identity, dir_fd=self._files, follow_symlinks=False)
        except FileNotFoundError:
            return
        if f"\nX-Fsjail-Staged={left.st_dev}:{left.st_ino}\n".encode() in info:
            return
        if (left.st_size, left.st_mtime_ns) != (kept.st_size, kept.st_mtime_ns):
            self.keep_too(left, identity, folder, name)

    def keep_too(self, st: os.stat_result, identity: str, folder: int, name: str) -> None:
        """Copy another program's content into the trash, under what an item says of it."""
        new = f"new-{os.urandom(12).hex()}"
        try:
            copy_entry(folder, name, self._stage, new)
            first = self._item(identity)
            item = self.claim(st, Reason(first.path, first.why, first.actor))
            rename_new(self._stage, new, self._files, item.id, private=True)
        finally:
            self._unlink(self._stage, new)

    def _recover_one(self, identity: str) -> str:
        """Bring one replacement to its end or its beginning: the inodes tell how far it came."""
        try:
            info = read_info(self._info, identity + INFO)
        except FileNotFoundError:
            remove_entry(self._stage, identity)
            return f"removed unfinished new content {identity}"
        try:
            left = os.stat(identity, dir_fd=self._stage, follow_symlinks=False)
        except FileNotFoundError:
            return self._recover_unfinished(identity)
        if f"\nX-Fsjail-Staged={left.st_dev}:{left.st_ino}\n".encode() in info:
            # The mark in the stage goes last: without it nobody would look at the rest again.
            done = self._recover_unfinished(identity)
            self._unlink(self._stage, identity)
            return done
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
            text = read_info(self._info, identity + INFO)
            item = parse_info(text, identity, kind_of(kept), 0, kept.st_ctime, self.real)
            live = os.stat(item.path, dir_fd=self._root, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            live = None
        if not same(kept, live):
            return f"kept {identity}: its name holds something else"
        os.unlink(identity, dir_fd=self._files)
        self.unclaim(identity)
        return f"rolled back {identity}: the old content has its name"
