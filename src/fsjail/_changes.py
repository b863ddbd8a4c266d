"""The changing operations of a jail."""

from __future__ import annotations

import errno
import os
import stat as stat_
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

from fsjail import _edit
from fsjail._content import copy_file, copy_tree, decode, demand_regular, demand_writable, place
from fsjail._copying import copy_data
from fsjail._door import Door
from fsjail._errors import AccessDenied, InvalidName, LimitExceeded, Moved
from fsjail._home import Reason, lstat, same
from fsjail._stage import Staged, sync_folder
from fsjail._streams import StagedRaw, open_plain, open_staged
from fsjail._values import NOTHING, Change

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsjail._root import Target

    StrPath = str | os.PathLike[str]


class Changes(Door):
    """Opening, writing, moving, deleting; see ``Jail`` for what holds for all of them."""

    def open(
        self, path: StrPath, mode: str = "r", *, encoding: str | None = None, newline: str | None = None
    ) -> IO[Any]:
        """Open a file as the built-in ``open`` does; text is UTF-8 unless said otherwise.

        Writing goes to staged content that takes the name on close; an exception inside the
        ``with`` block, or never closing, discards it and leaves the old file as it was.

        Args:
            path: the name.
            mode: r, w, a or x, with b and + as usual.
            encoding: for text.
            newline: for text.

        Raises:
            ValueError: an impossible mode.
            AccessDenied, OSError: as :meth:`read_bytes` and :meth:`write_bytes`.
        """
        plain = mode.replace("b", "", 1).replace("t", "", 1)
        if plain not in {"r", "w", "a", "x", "r+", "w+", "a+", "x+"} or ("b" in mode and "t" in mode):
            message = f"invalid mode: {mode!r}"
            raise ValueError(message)
        if plain == "r":
            fd = self._mediate("read", path, self._take, opened=True)
            return open_plain(fd, mode, encoding, newline)
        reads = plain in {"r+", "a", "a+"}
        op = "edit" if plain in {"r+", "a+", "w+", "x+"} else "write"
        staged = self._mediate(op, path, lambda it: self._begin(it, plain, copy=reads), quiet=True)
        commit = self._committing(op, path, exclusive=plain.startswith("x"))
        raw = StagedRaw(staged, "r+" if "+" in plain else "w", commit, self._spend_one)
        if plain.startswith("a"):
            raw.seek(0, os.SEEK_END)
        return open_staged(raw, mode, encoding, newline)

    def _take(self, target: Target) -> int:
        self._readable(target)
        fd, target.fd = target.fd, -1
        return fd

    def _readable(self, target: Target) -> None:
        size, most = demand_regular(target.st).st_size, self.limits.max_read_bytes
        if most is not None and size > most:
            raise LimitExceeded(errno.EFBIG, f"{size} bytes are over the limit of {most} bytes for one read")

    def _begin(self, target: Target, mode: str, *, copy: bool) -> Staged:
        """Check that a file can be written, and stage what the mode starts from."""
        demand_writable(target)
        if mode.startswith("x") and target.st is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        if mode.startswith("r"):
            demand_regular(target.st)
        if "+" in mode and copy and target.st is not None:
            self._readable(target)
        new = Staged(target.parent, self._store.stage)
        try:
            if copy and target.st is not None:
                old = target.open()
                try:
                    copy_data(old, new.fd)
                finally:
                    os.close(old)
                os.lseek(new.fd, 0, os.SEEK_SET)
        except BaseException:
            new.close()
            raise
        return new

    def _committing(self, op: str, path: StrPath, *, exclusive: bool) -> Callable[[Staged], Change]:
        def commit(staged: Staged) -> Change:
            size = os.fstat(staged.fd).st_size
            self._spend(size)
            first = [staged]

            def act(target: Target) -> Change:
                if exclusive and target.st is not None:  # it came to be meanwhile
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
                demand_writable(target)
                if first:  # the content itself; after a swapped name it has had a name and needs a copy
                    saved = place(self._store, target, first.pop(), "overwritten", self.actor)
                else:
                    with Staged(target.parent, self._store.stage) as again:
                        copy_data(staged.fd, again.fd)
                        saved = place(self._store, target, again, "overwritten", self.actor)
                return Change("write", target.name, saved=saved)

            return self._mediate("write", path, act, judged=op)

        return commit

    def write_bytes(self, path: StrPath, data: bytes, *, parents: bool = False) -> Change:
        """Put content at a name: staged, synced, then renamed in; the old content goes to the trash.

        Args:
            path: the name; mode, owner and attributes of an old file are kept.
            data: the whole new content.
            parents: whether missing parent directories are created.

        Raises:
            FileNotFoundError: a parent directory is missing.
            IsADirectoryError, NotRegularFile, PermissionError: the name cannot be written.
            LimitExceeded: over a limit; nothing was changed.
            AccessDenied: refused.
        """
        return self._write("write", path, data, "overwritten", parents=parents)

    def write_text(
        self, path: StrPath, text: str, *, encoding: str = "utf-8", parents: bool = False
    ) -> Change:
        """Put text at a name, with its line ends as they are; see :meth:`write_bytes`."""
        return self.write_bytes(path, text.encode(encoding), parents=parents)

    def append_text(
        self, path: StrPath, text: str, *, encoding: str = "utf-8", parents: bool = False
    ) -> Change:
        """Add text at the end of a file, or create it; the version before goes to the trash."""
        return self._write("append", path, text.encode(encoding), "appended to", parents=parents)

    def _write(self, op: str, path: StrPath, data: bytes, why: str, *, parents: bool) -> Change:
        def act(target: Target) -> Change:
            demand_writable(target)
            with Staged(target.parent, self._store.stage) as new:
                if op == "append" and target.st is not None:
                    size = target.st.st_size + len(data)
                    self._spend(size)
                    old = target.open()
                    try:
                        copy_data(old, new.fd)
                    finally:
                        os.close(old)
                    os.lseek(new.fd, 0, os.SEEK_END)
                else:
                    self._spend(len(data))
                new.write(data)
                return Change(op, target.name, saved=place(self._store, target, new, why, self.actor))

        if not parents:
            return self._mediate(op, path, act, judged="write")
        self._afford(len(data))  # a refused write makes no parents
        made = self._make_parents(path)
        try:
            return self._mediate(op, path, act, judged="write")
        except BaseException:
            self._unmake(made)
            raise

    def _read_old(self, target: Target) -> bytes:
        """Read what an edit or append starts from; the target's stat becomes that of the open file."""
        self._readable(target)
        fd = target.open()
        try:
            target.st = demand_regular(os.fstat(fd))
            with os.fdopen(os.dup(fd), "rb") as stream:
                return stream.read()
        finally:
            os.close(fd)

    def edit(self, path: StrPath, old: str, new: str, *, count: int = 1, dry_run: bool = False) -> Change:
        """Replace ``count`` places of a text in a UTF-8 file; line ends keep their kind.

        Args:
            path: the file.
            old: the text to replace; must be found exactly ``count`` times.
            new: the text to put there.
            count: how many places there must be.
            dry_run: only say what would change.

        Returns:
            the change, with a unified diff.

        Raises:
            ValueError: ``old`` is missing, empty, or ambiguous (says in which lines).
            UnicodeDecodeError: the file is not UTF-8; it is left as it is rather than damaged.
            AccessDenied, OSError: as :meth:`write_bytes`.
        """

        def act(target: Target) -> Change:
            demand_regular(target.st)
            demand_writable(target)
            before = decode(self._read_old(target), "utf-8")
            after = _edit.replace(before, old, new, count, self._afford)
            diff = _edit.unified_diff(target.name, before, after)
            if dry_run:
                return Change("edit", target.name, diff=diff, seq=NOTHING)
            data = after.encode()
            self._spend(len(data))
            with Staged(target.parent, self._store.stage) as staged:
                staged.write(data)
                saved = place(self._store, target, staged, "edited", self.actor)
            return Change("edit", target.name, saved=saved, diff=diff)

        return self._mediate("edit", path, act)

    def mkdir(self, path: StrPath, *, parents: bool = False, exist_ok: bool = False) -> Change:
        """Create a directory.

        Args:
            path: its name.
            parents: whether missing parents are created, each judged by itself.
            exist_ok: whether an existing directory is no error.

        Raises:
            FileExistsError: something has the name.
            FileNotFoundError: a parent is missing.
        """
        if parents:
            self._make_parents(path, judged="mkdir")
        return self._mkdir(path, "mkdir", exist_ok=exist_ok)

    def _make_parents(self, path: StrPath, judged: str = "parent") -> list[str]:
        """Create the missing parents of a name that may be made itself.

        For a file, a directory that no rule covers but that leads to the file may be created too.

        Returns:
            the directories that were created, outermost first.
        """
        made: list[str] = []
        if not self.check("mkdir" if judged == "mkdir" else "write", path):
            return made  # the call itself refuses, and nothing was made
        request = self._root.parse(path)
        # "new/../x" asks for no directory "new".
        parts = request.parts[:-1] if request.direct else ()
        for number in range(1, len(parts) + 1):
            parent = "/".join(parts[:number])
            if not self.is_dir(parent):
                try:
                    self._mkdir(parent, judged, exist_ok=True)
                except AccessDenied:
                    self._unmake(made)
                    raise
                except OSError:
                    break  # a file or a loop is in the way: the call itself says so of its own path
                made.append(parent)
        return made

    def _unmake(self, made: list[str]) -> None:
        """Remove the parents of what then failed; one that somebody has put something into stays."""

        def act(target: Target) -> Change:
            os.rmdir(target.leaf, dir_fd=target.parent)
            return Change("rmdir", target.name)

        for parent in reversed(made):
            with suppress(OSError):
                self._mediate("rmdir", parent, act, judged="parent", follow=False)

    def _mkdir(self, path: StrPath, judged: str, *, exist_ok: bool) -> Change:
        def act(target: Target) -> Change:
            if target.st is not None:
                if not exist_ok or not target.kind:
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
                return Change("mkdir", target.name, seq=NOTHING)
            if target.dot_end:  # "new/." asks for something in a directory that is not there
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            try:
                os.mkdir(target.leaf, dir_fd=target.parent)
                with suppress(FileNotFoundError):  # taken away again already; it was made all the same
                    target.left = lstat(target.leaf, target.parent)
            except FileExistsError:
                raise Moved from None
            sync_folder(target.parent, durable=self._store.durable)
            return Change("mkdir", target.name)

        if exist_ok and self.is_dir(path):  # also by way of a link
            return Change("mkdir", self._root.parse(path).name or ".")
        return self._mediate("mkdir", path, act, judged=judged, follow=False)

    def delete(self, path: StrPath) -> Change:
        """Move a file, link or whole directory to the trash; a link is deleted as itself.

        Raises:
            OutOfBounds: the root itself.
            PolicyDenied: a name beneath may not be written: the whole is refused, naming it.
            TrashError: it cannot be kept; nothing was removed.
        """
        return self._delete(path)

    def _delete(self, path: StrPath, extra: dict[str, Any] | None = None) -> Change:
        def act(target: Target) -> Change:
            _demand_leaf(target)
            self._judge_tree("delete", target, None)
            saved = self._store.keep(target, Reason(target.name, "deleted", self.actor))
            return Change("delete", target.name, saved=saved)

        return self._mediate("delete", path, act, follow=False, extra=extra)

    def copy(self, src: StrPath, dst: StrPath, *, overwrite: bool = False) -> Change:
        """Copy a file or a whole directory; ``dst`` is the new name itself.

        Args:
            src: what to copy; a link at its end is followed, links in a directory are copied as links.
            dst: the new name.
            overwrite: whether something at ``dst`` may be replaced; it goes to the trash.

        Raises:
            FileExistsError: ``dst`` exists and ``overwrite`` is false.
            PolicyDenied: a name in the tree may not be read, or not be written at its new place.
        """

        def act(source: Target, end: Target) -> Change:
            into_itself(source, end)
            _onto_parent(source, end)
            if end.st is not None and (not overwrite or same(source.st, end.st)):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            if not source.kind:
                demand_writable(end)
                self._spend(demand_regular(source.st).st_size)
                saved = copy_file(self._store, source, end, self.actor)
                return Change("copy", source.name, end.name, saved)
            self._judge_tree("copy", source, end)
            saved = None
            if end.st is not None:
                if not end.kind:
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
                self._judge_tree("delete", end, None)
                saved = self._store.keep(end, Reason(end.name, "overwritten", self.actor))

            def judge(below: str, kind: bool | None) -> None:
                self._judge.tree("copy", [(below, kind)], {0: source.name, 1: end.name}, source.name)

            try:
                copy_tree(self._store, source, end, judge, self._spend)
            except BaseException:
                if saved is not None:
                    self._store.give_back(saved.id, end)
                raise
            return Change("copy", source.name, end.name, saved)

        return self._mediate("copy", src, act, to=dst, opened=True)

    def move(self, src: StrPath, dst: StrPath, *, overwrite: bool = False) -> Change:
        """Rename a file, link or whole directory; ``dst`` is the new name itself.

        Args:
            src: what to move; a link is moved as itself.
            dst: the new name.
            overwrite: whether something at ``dst`` may be replaced; it goes to the trash.

        Raises:
            FileExistsError: ``dst`` exists and ``overwrite`` is false.
            InvalidName: a directory into itself.
            PolicyDenied: a name in the tree may not be written at its old or its new place.
        """
        return self._move(src, dst, overwrite=overwrite)

    def _move(
        self, src: StrPath, dst: StrPath, *, overwrite: bool, extra: dict[str, Any] | None = None
    ) -> Change:
        def act(source: Target, end: Target) -> Change:
            _demand_leaf(source)
            if source.name == end.name:
                return Change("move", source.name, end.name, seq=NOTHING)
            into_itself(source, end)
            _onto_parent(source, end)
            self._judge_tree("move", source, end)
            if end.st is None:
                if end.must_dir and not source.kind:
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
                try:
                    self._store.move(source, end)
                except FileExistsError:
                    raise Moved from None
                return Change("move", source.name, end.name)
            if not overwrite:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            if bool(end.kind) != bool(source.kind):
                error = IsADirectoryError if end.kind else NotADirectoryError
                number = errno.EISDIR if end.kind else errno.ENOTDIR
                raise error(number, os.strerror(number))
            reason = Reason(end.name, "moved onto", self.actor)
            if stat_.S_ISREG(end.st.st_mode) and not same(source.st, end.st):
                saved = self._store.move_onto(source, end, reason)
            else:
                # A directory or link; or two names of one inode, whose rename would do nothing.
                self._judge_tree("delete", end, None)
                saved = self._store.keep(end, reason)
                try:
                    self._store.move(source, end)
                except BaseException:
                    self._store.give_back(saved.id, end)
                    raise
            return Change("move", source.name, end.name, saved)

        return self._mediate("move", src, act, to=dst, follow=False, extra=extra)


def into_itself(source: Target, end: Target) -> None:
    """Refuse a directory that is to go into itself.

    Raises:
        InvalidName: it is.
    """
    if source.kind and (source.name == "." or end.name.startswith(source.name + "/")):
        error = InvalidName(errno.EINVAL, "a directory cannot go into itself", source.name)
        error.why = "jail: into itself"
        raise error


def _onto_parent(source: Target, end: Target) -> None:
    """Refuse to replace a directory by something in it: it would go to the trash with its parent."""
    if source.name.startswith(end.name + "/"):
        raise OSError(errno.ENOTEMPTY, "the destination holds the source")


def _demand_leaf(target: Target) -> None:
    """A name to remove or rename must be there, and be a name: not "d/." and not "link/"."""
    if target.dot_end:
        raise InvalidName(errno.EINVAL, "the path ends in '.' or '..'; name the thing itself")
    if target.st is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
