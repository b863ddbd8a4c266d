"""Listing, walking, glob and grep over held directories.

Every directory is opened anew from the root by its canonical name, with no link followed on the
way; every file is opened below its directory's descriptor. So a directory or file that is swapped
for a link meanwhile is left out, and never leads out.

Names that may not be read are not shown, and denied directories are not opened.
"""

from __future__ import annotations

import errno
import os
import stat as stat_
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from fsjail._errors import AccessDenied, InvalidName, LimitExceeded, Moved
from fsjail._gitignore import parse
from fsjail._matcher import Matcher, compile_glob
from fsjail._selftest import READ
from fsjail._trash import kind_of
from fsjail._values import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fsjail._judge import Judge
    from fsjail._limits import Limits
    from fsjail._lines import Lines
    from fsjail._root import Root
    from fsjail._values import Hit

    # Chooses files, given their directory's name and theirs in it.
    Filter = Callable[[str, list[str]], list[str]]

# Bytes of a file read at first, and then searched at once: the clock is looked at between the blocks.
_FIRST = 64 << 10
_BLOCK = 256 << 10
_BINARY = 8192  # a NUL within so many bytes means binary, as grep and git have it
# Gone, swapped for something else, or closed to us since it was listed: left out, as os.walk does.
_SKIPPED = {
    errno.EAGAIN,
    errno.EISDIR,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.EACCES,
    errno.EPERM,
    errno.ENXIO,
    errno.ENAMETOOLONG,
}


class _Names(NamedTuple):
    """The names in a directory, by what they are."""

    folders: list[str]
    files: list[str]
    links: list[str]
    others: list[str]


class Looker:
    """One look at the tree: what may be read, under the limits of the jail.

    Args:
        root: the held root.
        judge: the policy on the disk.
        limits: bounds for results and seconds.
    """

    def __init__(self, root: Root, judge: Judge, limits: Limits) -> None:
        self._root = root
        self._judge = judge
        self._limits = limits
        self._until = None if limits.max_seconds is None else time.monotonic() + limits.max_seconds

    # ── listing ────────────────────────────────────────────────────────────────────────────────

    def entries(self, fd: int, name: str) -> list[Entry]:
        """The readable entries of an open directory, by name."""
        prefix = "" if name == "." else f"{name}/"
        names = _names(fd)
        shown = self._judge.policy.readable(name, names.files + names.others)
        shown += [folder for folder in names.folders if self._shows_directory(prefix + folder)]
        shown += [link for link in names.links if self._shows_link(prefix + link)]
        self._count(len(shown))
        shown.sort()
        found = []
        for base in shown:
            try:
                st = os.stat(base, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            found.append(Entry(prefix + base, base, kind_of(st), st.st_size, st.st_mtime))
        return found

    def _shows_directory(self, path: str) -> bool:
        if self._judge.policy.judge("read", path, True).allowed:
            return True
        # Only the way to something readable is shown; a denied directory is not opened.
        return self._judge.verdict("list", path, True).allowed and self.leads(path)

    def _shows_link(self, path: str) -> bool:
        """A link is hidden when its target may not be read or is outside; dangling ones are shown."""
        if not self._judge.policy.judge("read", path, None).allowed:
            return False
        try:
            request = self._root.parse(path)
            with self._root.resolve(request, self._judge.hops("read", 0)) as target:
                self._judge.final("read", 0, request, target, target.kind)
                self._judge.not_own("read", request, target)
        except (AccessDenied, InvalidName, Moved):
            return False
        except OSError:
            return True
        return True

    def leads(self, path: str) -> bool:
        """Whether a directory that no allow rule covers leads to something that may be read."""
        pending = [path]
        while pending:
            self._in_time()
            name = pending.pop()
            fd = self._open(name)
            if fd is None:
                continue
            try:
                names = _names(fd)
            finally:
                os.close(fd)
            prefix = "" if name == "." else f"{name}/"
            below = [prefix + folder for folder in names.folders]
            if (
                self._judge.policy.readable(name, names.files + names.others)
                or any(self._judge.policy.judge("read", each, True).allowed for each in below)
                or any(self._shows_link(prefix + link) for link in names.links)
            ):
                return True
            pending.extend(each for each in below if self._judge.verdict("list", each, True).allowed)
        return False

    # ── walking ────────────────────────────────────────────────────────────────────────────────

    def _open(self, name: str) -> int | None:
        try:
            return self._root.open_directory(name)
        except Moved:  # swapped for a link or file since it was listed
            return None
        except OSError as error:
            if error.errno in _SKIPPED:
                return None
            raise

    def _folders(self, start: str) -> Iterator[tuple[str, int, _Names]]:
        """Top down: (name, descriptor, names in it); the descriptor is ours.

        The directories among the names may be shown, and are entered next; the rest is still to be
        judged: most searches want little of it.
        """
        pending = [start]
        while pending:
            self._in_time()
            name = pending.pop()
            fd = self._open(name)
            if fd is None:
                continue
            prefix = "" if name == "." else f"{name}/"
            try:
                names = _names(fd)
                names.folders[:] = [each for each in names.folders if self._shows_directory(prefix + each)]
                names.folders.sort()
                yield name, fd, names
            finally:
                os.close(fd)
            pending.extend(prefix + folder for folder in reversed(names.folders))

    def walk(self, start: str) -> Iterator[tuple[str, list[str], list[str]]]:
        """As ``os.walk``, over what may be read."""
        for name, _, (folders, files, links, others) in self._folders(start):
            prefix = "" if name == "." else f"{name}/"
            shown = self._judge.policy.readable(name, files + others)
            shown += [link for link in links if self._shows_link(prefix + link)]
            shown.sort()
            judged = set(folders)
            yield name, folders, shown
            # The caller may leave directories out or sort them, not add ways that were never judged.
            folders[:] = [folder for folder in folders if folder in judged]

    def glob(self, pattern: str, start: str) -> list[str]:
        """Names below ``start`` that match, sorted."""
        matches = compile_glob(pattern)
        policy = self._judge.policy
        skip = 0 if start == "." else len(start) + 1
        found: list[str] = []
        for name, _, (folders, files, links, others) in self._folders(start):
            prefix = "" if name == "." else f"{name}/"
            test = matches.inside("" if name == start else name[skip:])
            if test is not None:
                ways = [prefix + each for each in filter(test, folders)]
                found += [path for path in ways if policy.judge("read", path, True).allowed]
            if test is not None and not matches.dir_only:
                found += [prefix + each for each in policy.readable(name, filter(test, files + others))]
                ways = [prefix + each for each in filter(test, links)]
                found += [path for path in ways if self._shows_link(path)]
            # Directories below which nothing can match are not entered.
            folders[:] = [folder for folder in folders if matches.reaches_below((prefix + folder)[skip:])]
            self._count(len(found))
        found.sort()
        return found

    # ── grep ───────────────────────────────────────────────────────────────────────────────────

    def grep(
        self, lines: Lines, start: str, wanted: Filter | None, max_hits: int | None, *, is_dir: bool
    ) -> Iterator[Hit]:
        """The lines that match, file by file in the order of the walk."""
        hits = self._in_tree(lines, start, wanted) if is_dir else self._in_one(lines, start)
        for number, hit in enumerate(hits):
            if number == max_hits:
                return
            self._count(number + 1)
            yield hit

    def _in_one(self, lines: Lines, path: str) -> Iterator[Hit]:
        with suppress(Moved, FileNotFoundError):  # gone or swapped since it was judged: no hits
            request = self._root.parse(path)
            with self._root.open(request, self._judge.hops("read", 0)) as target:
                self._judge.final("read", 0, request, target, target.kind)
                self._judge.not_own("read", request, target)
                if target.fd >= 0 and target.kind is False:
                    yield from self._search(target.fd, path, lines, os.read(target.fd, _FIRST))

    def _in_tree(self, lines: Lines, start: str, wanted: Filter | None) -> Iterator[Hit]:
        readable, misses = self._judge.policy.readable, lines.misses
        for name, folder, names in self._folders(start):
            prefix = "" if name == "." else f"{name}/"
            # Links are left out; their target is found under its own name.
            files = names.files if wanted is None else wanted(name, names.files)
            for file in sorted(readable(name, files)):
                path = prefix + file
                self._in_time()
                fd = -1
                try:
                    fd = os.open(file, READ, dir_fd=folder)  # O_NOFOLLOW: it may be a link by now
                    block = os.read(fd, _FIRST)
                    if misses(block):  # most files are no longer, and hold nothing
                        more = os.read(fd, _FIRST)
                        if not more:
                            continue
                        block += more
                    yield from self._search(fd, path, lines, block)
                except OSError as error:
                    if error.errno not in _SKIPPED:
                        raise
                finally:
                    if fd >= 0:
                        os.close(fd)

    def _search(self, fd: int, path: str, lines: Lines, block: bytes) -> Iterator[Hit]:
        """Search a file of which the first block has been read, and the rest of it."""
        # A FIFO or device that was put in its place since it was listed: what it gave is not shown.
        if not stat_.S_ISREG(os.fstat(fd).st_mode) or block.find(0, 0, _BINARY) >= 0:
            return
        number, rest = 1, b""
        while block:
            self._in_time()
            block = rest + block
            # Whole lines only; a "line" longer than a block is cut, which bounds the memory.
            end = block.rfind(b"\n") + 1 if len(rest) < _BLOCK else len(block)
            if not end and len(block) > _BLOCK:
                end = len(block)
            rest = block[end:]
            if end:
                number = yield from lines.hits(block[:end], path, number, self._in_time)
            block = os.read(fd, _BLOCK)
        if rest:
            yield from lines.hits(rest, path, number, self._in_time)

    # ── limits ─────────────────────────────────────────────────────────────────────────────────

    def _in_time(self) -> None:
        if self._until is not None and time.monotonic() > self._until:
            message = f"the search took longer than {self._limits.max_seconds} seconds; narrow it"
            raise LimitExceeded(errno.ETIMEDOUT, message)

    def _count(self, number: int) -> None:
        most = self._limits.max_results
        if most is not None and number > most:
            raise LimitExceeded(errno.EDQUOT, f"more than {most} results; narrow the search")


def _names(fd: int) -> _Names:
    names = _Names([], [], [], [])
    folders, files, links, others = names
    with os.scandir(fd) as scan:
        for entry in scan:
            if entry.is_file(follow_symlinks=False):
                files.append(entry.name)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            elif entry.is_symlink():
                links.append(entry.name)
            else:
                others.append(entry.name)
    return names


def compile_filter(pattern: str) -> Filter:
    """Make the test for grep's ``glob``: a gitignore pattern, so "*.py" holds at every depth.

    Raises:
        ValueError: the pattern can never match.
    """
    parsed = parse(pattern)
    if parsed is None or parsed.negative:
        message = f"{pattern!r} selects no files"
        raise ValueError(message)
    matcher = Matcher([parsed])

    def wanted(folder: str, files: list[str]) -> list[str]:
        parts = [] if folder == "." else folder.split("/")
        # A directory that matches selects what is below it, as "src/" should.
        ways = ("/".join(parts[:number]) for number in range(1, len(parts) + 1))
        if any(matcher.last_match(way, is_dir=True) is not None for way in ways):
            return files
        level = matcher.level("/".join(parts))
        return [file for file in files if level.hits(file, is_dir=False)]

    return wanted
