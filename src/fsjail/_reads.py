"""The reading operations of a jail."""

from __future__ import annotations

import errno
import os
import stat as stat_
from typing import TYPE_CHECKING

from fsjail import _search
from fsjail._content import decode, demand_regular, read_lines, read_range
from fsjail._door import Door
from fsjail._errors import AccessDenied, InvalidName
from fsjail._lines import Lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsjail._root import Target
    from fsjail._values import Entry, Hit

    StrPath = str | os.PathLike[str]


class Reads(Door):
    """Reading, listing, searching; see ``Jail`` for what holds for all of them."""

    def read_bytes(self, path: StrPath, *, offset: int = 0, limit: int | None = None) -> bytes:
        """Read a file, or ``limit`` bytes of it from byte ``offset`` on.

        Raises:
            AccessDenied, NotRegularFile, LimitExceeded: see the error tree.
            FileNotFoundError, IsADirectoryError, PermissionError: as ``open`` would.
        """
        most = self.limits.max_read_bytes
        return self._mediate("read", path, lambda it: read_range(it, offset, limit, most), opened=True)

    def read_text(self, path: StrPath, *, encoding: str = "utf-8") -> str:
        """Read a whole text file, with its line ends as they are.

        Raises:
            UnicodeDecodeError: the file is not text in this encoding.
            AccessDenied, OSError: as :meth:`read_bytes`.
        """
        return decode(self.read_bytes(path), encoding)

    def read_lines(
        self, path: StrPath, start: int = 1, count: int | None = None, *, encoding: str = "utf-8"
    ) -> list[str]:
        """Read ``count`` lines from line ``start`` (from 1) on, without their ends, and nothing beyond.

        Raises:
            UnicodeDecodeError: the lines are not text in this encoding.
            AccessDenied, OSError: as :meth:`read_bytes`.
        """
        limits = self.limits
        return self._mediate(
            "read", path, lambda it: read_lines(it, start, count, encoding, limits), opened=True
        )

    def stat(self, path: StrPath, *, follow_symlinks: bool = True) -> os.stat_result:
        """The status of a file, directory, or of a link itself with ``follow_symlinks=False``."""

        def act(target: Target) -> os.stat_result:
            self._demand_way(target)
            if target.st is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            return target.st

        return self._mediate("read", path, act, judged="stat", follow=follow_symlinks)

    def exists(self, path: StrPath) -> bool:
        """Whether something readable has this name; False for a refused name, there or not."""
        return self._mode(path) is not None

    def is_file(self, path: StrPath) -> bool:
        """Whether the name leads to a readable file."""
        return stat_.S_ISREG(self._mode(path) or 0)

    def is_dir(self, path: StrPath) -> bool:
        """Whether the name leads to a directory that may be listed."""
        return stat_.S_ISDIR(self._mode(path) or 0)

    def _mode(self, path: StrPath) -> int | None:
        try:
            return self.stat(path).st_mode
        except (AccessDenied, InvalidName):
            return None
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}:
                return None
            raise

    def listdir(self, path: StrPath = ".") -> list[Entry]:
        """The entries of a directory that may be read, by name; what is denied is not shown."""

        def act(target: Target) -> list[Entry]:
            self._demand_way(target)
            if not target.kind:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            return self._looker().entries(target.fd, target.name)

        return self._mediate("list", path, act, opened=True)

    def walk(self, path: StrPath = ".") -> Iterator[tuple[str, list[str], list[str]]]:
        """Walk a tree as ``os.walk`` does, top down: (directory, its directories, its other names).

        Links are among the other names and are not followed. Names that may not be read are left
        out, and denied directories are not entered. Changing the second list steers the walk.

        Raises:
            LimitExceeded: it takes longer than ``limits.max_seconds``.
        """
        return self._looker().walk(self._start(path, directory=True)[0])

    def glob(self, pattern: str, path: StrPath = ".") -> list[str]:
        """Names below ``path`` that match, relative to the root, sorted.

        Args:
            pattern: gitignore syntax read from ``path``: ``*.py`` is what lies in it, ``**/*.py``
                at every depth, ``**/tests/`` directories only.
            path: the directory to search.

        Raises:
            ValueError: the pattern can never match.
            OutOfBounds: it leads out of the root.
        """
        start, _ = self._start(path, directory=True)
        if pattern.startswith("/") or ".." in pattern.split("/"):
            raise self._outside("list", pattern)
        return self._looker().glob(pattern, start)

    def grep(
        self,
        pattern: str,
        path: StrPath = ".",
        *,
        glob: str | None = None,
        ignore_case: bool = False,
        literal: bool = False,
        max_hits: int | None = None,
    ) -> Iterator[Hit]:
        """Search the lines of readable text files, in linear time whatever the pattern.

        Args:
            pattern: a regular expression in RE2 syntax: no look-around, no back-references.
            path: a directory or a file.
            glob: gitignore pattern for the files to search, such as ``*.py``.
            ignore_case: whether case matters not.
            literal: take the pattern as plain text.
            max_hits: stop after so many.

        Raises:
            ValueError: the pattern is no RE2 expression.
            LimitExceeded: more than ``limits.max_results`` hits, or ``limits.max_seconds``.
        """
        start, is_dir = self._start(path, directory=False)
        lines = Lines(pattern, ignore_case=ignore_case, literal=literal)
        wanted = None if glob is None else _search.compile_filter(glob)
        return self._looker().grep(lines, start, wanted, max_hits, is_dir=is_dir)

    def _demand_way(self, target: Target) -> None:
        """Refuse a directory that no rule covers and that leads to nothing either, as if it were missing."""
        if target.kind and target.name != ".":
            verdict = self._judge.verdict("read", target.name, True)
            if not verdict.allowed and not self._looker().leads(target.name):
                raise self._judge.refuse("list", target.name, verdict)

    def _looker(self) -> _search.Looker:
        return _search.Looker(self._root, self._judge, self.limits)

    def _start(self, path: StrPath, *, directory: bool) -> tuple[str, bool]:
        """Judge where a search begins; gives its canonical name and whether it is a directory."""

        def act(target: Target) -> tuple[str, bool]:
            self._demand_way(target)
            if target.st is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            if directory and not target.kind:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if not target.kind:
                demand_regular(target.st)
            return target.name, bool(target.kind)

        return self._mediate("list", path, act, judged="list" if directory else "stat")
