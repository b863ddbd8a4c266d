"""Listing, walking, glob and grep over held directories.

Every directory is opened anew from the root by its canonical name, with no link followed on the
way; every file is opened below its directory's descriptor. So a directory or file that is swapped
for a link meanwhile is left out, and never leads out.

Regular expressions run on RE2, whose time is linear in the text: an agent's pattern cannot hang
the host. Names that may not be read are not shown, and denied directories are not opened.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fsjail._errors import AccessDenied, InvalidName, LimitExceeded, Moved
from fsjail._gitignore import Matcher, compile_glob, parse
from fsjail._selftest import READ
from fsjail._trash import kind_of
from fsjail._values import Entry, Hit

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from fsjail._judge import Judge
    from fsjail._limits import Limits
    from fsjail._root import Root

    Search = Callable[[bytes, int], tuple[int, int] | None]
    Filter = Callable[[str], bool]

# Bytes of a file searched at once, and steps of a compiled pattern: RE2 may take their product in time,
# and the clock is looked at between the blocks.
_BLOCK = 256 << 10
_PROGRAM = 2000
_BINARY = 8192  # a NUL within so many bytes means binary, as grep and git have it
_LINE = 2000  # characters of a line that a hit shows
_PATTERN = 4096
# Gone, swapped for a link or file, or closed to us since it was listed: left out, as os.walk does.
_SKIPPED = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.EACCES,
    errno.EPERM,
    errno.ENXIO,
    errno.ENAMETOOLONG,
}


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
        found = []
        with os.scandir(fd) as scan:
            for entry in scan:
                path = prefix + entry.name
                if self._shows(path, entry):
                    try:
                        st = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    found.append(Entry(path, entry.name, kind_of(st), st.st_size, st.st_mtime))
        self._count(len(found))
        found.sort(key=lambda entry: entry.name)
        return found

    def _shows(self, path: str, entry: os.DirEntry[str]) -> bool:
        if entry.is_dir(follow_symlinks=False):
            return self._shows_directory(path)
        if entry.is_symlink():
            return self._shows_link(path)
        return self._judge.policy.judge("read", path, False).allowed

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
            for below, entry in self._scan(pending.pop()):
                if entry.is_dir(follow_symlinks=False):
                    if self._judge.policy.judge("read", below, True).allowed:
                        return True
                    if self._judge.verdict("list", below, True).allowed:
                        pending.append(below)
                elif self._shows(below, entry):
                    return True
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

    def _scan(self, name: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        fd = self._open(name)
        if fd is None:
            return
        prefix = "" if name == "." else f"{name}/"
        try:
            with os.scandir(fd) as scan:
                for entry in scan:
                    yield prefix + entry.name, entry
        finally:
            os.close(fd)

    def _folder(self, name: str, fd: int) -> tuple[list[str], list[str]]:
        """Names of the readable directories, and of the other things, in an open directory."""
        policy = self._judge.policy
        prefix = "" if name == "." else f"{name}/"
        folders, others = [], []
        with os.scandir(fd) as scan:
            for entry in scan:
                if entry.is_dir(follow_symlinks=False):
                    if self._shows_directory(prefix + entry.name):
                        folders.append(entry.name)
                elif entry.is_symlink():
                    if self._shows_link(prefix + entry.name):
                        others.append(entry.name)
                elif policy.judge("read", prefix + entry.name, False).allowed:
                    others.append(entry.name)
        folders.sort()
        others.sort()
        return folders, others

    def _folders(self, start: str) -> Iterator[tuple[str, int, list[str], list[str]]]:
        """Top down: (name, descriptor, directories, other names); the descriptor is ours."""
        pending = [start]
        while pending:
            self._in_time()
            name = pending.pop()
            fd = self._open(name)
            if fd is None:
                continue
            try:
                folders, others = self._folder(name, fd)
                yield name, fd, folders, others
            finally:
                os.close(fd)
            prefix = "" if name == "." else f"{name}/"
            pending.extend(prefix + folder for folder in reversed(folders))

    def walk(self, start: str) -> Iterator[tuple[str, list[str], list[str]]]:
        """As ``os.walk``, over what may be read."""
        for name, _, folders, others in self._folders(start):
            shown = set(folders)
            yield name, folders, others
            # The caller may leave directories out or sort them, not add ways that were never judged.
            folders[:] = [folder for folder in folders if folder in shown]

    def glob(self, pattern: str, start: str) -> list[str]:
        """Names below ``start`` that match, sorted."""
        matches = compile_glob(pattern)
        readable = self._judge.policy.judge
        skip = 0 if start == "." else len(start) + 1
        found: list[str] = []
        for name, _, folders, others in self._folders(start):
            prefix = "" if name == "." else f"{name}/"
            for other in others:
                path = prefix + other
                if matches(path[skip:], False):
                    found.append(path)
            for folder in folders:
                path = prefix + folder
                if matches(path[skip:], True) and readable("read", path, True).allowed:
                    found.append(path)
            # Directories below which nothing can match are not entered.
            folders[:] = [folder for folder in folders if matches.reaches_below((prefix + folder)[skip:])]
            self._count(len(found))
        found.sort()
        return found

    # ── grep ───────────────────────────────────────────────────────────────────────────────────

    def grep(
        self, search: Search, start: str, wanted: Filter | None, max_hits: int | None, *, is_dir: bool
    ) -> Iterator[Hit]:
        """The lines that match, file by file in the order of the walk."""
        number = 0
        for path, fd in self._files(start, wanted, is_dir=is_dir):
            try:
                hits = self._search_file(fd, path, search)
                for hit in hits:
                    if max_hits is not None and number >= max_hits:
                        return
                    number += 1
                    self._count(number)
                    yield hit
            finally:
                os.close(fd)

    def _files(self, start: str, wanted: Filter | None, *, is_dir: bool) -> Iterator[tuple[str, int]]:
        if not is_dir:
            with suppress(Moved, FileNotFoundError):  # gone or swapped since it was judged: no hits
                request = self._root.parse(start)
                with self._root.open(request, self._judge.hops("read", 0)) as target:
                    self._judge.final("read", 0, request, target, target.kind)
                    self._judge.not_own("read", request, target)
                    fd, target.fd = target.fd, -1
                if fd >= 0:
                    yield start, fd
            return
        for name, folder, _, others in self._folders(start):
            prefix = "" if name == "." else f"{name}/"
            for other in others:
                path = prefix + other
                if wanted is not None and not wanted(path):
                    continue
                self._in_time()
                try:
                    # O_NOFOLLOW: links are left out; their target is found under its own name.
                    fd = os.open(other, READ, dir_fd=folder)
                except OSError as error:
                    if error.errno in _SKIPPED:
                        continue
                    raise
                yield path, fd

    def _search_file(self, fd: int, path: str, search: Search) -> Iterator[Hit]:
        if kind_of(os.fstat(fd)) != "file":
            return
        number, rest = 1, b""
        first = True
        while block := os.read(fd, _BLOCK):
            self._in_time()
            if first and b"\0" in block[:_BINARY]:
                return
            first = False
            block = rest + block
            # Whole lines only; a "line" longer than a block is cut, which bounds the memory.
            end = block.rfind(b"\n") + 1 if len(rest) < _BLOCK else len(block)
            if not end and len(block) <= _BLOCK:
                rest = block
                continue
            end = end or len(block)
            rest = block[end:]
            number = yield from self._hits(block[:end], path, number, search)
        if rest:
            yield from self._hits(rest, path, number, search)

    def _hits(self, block: bytes, path: str, number: int, search: Search) -> Generator[Hit, None, int]:
        """Hits in whole lines; returns the number of the line behind them."""
        if b"\r" in block:
            block = block.replace(b"\r\n", b"\n")  # so that "$" is before CRLF too
        at = counted = 0
        while at < len(block):
            self._in_time()
            found = search(block, at)
            if found is None:
                break
            begin = block.rfind(b"\n", 0, found[0]) + 1
            if begin >= len(block):
                break  # "$" behind the last line end: there is no line
            end = block.find(b"\n", found[0])
            end = len(block) if end < 0 else end
            line = block[begin:end]
            number += block.count(b"\n", counted, begin)
            counted = begin
            text = line.decode("utf-8", "replace")
            column = len(block[begin : found[0]].decode("utf-8", "replace")) + 1
            if len(text) > _LINE:  # show the part around the match
                first = max(0, min(column - 1 - _LINE // 4, len(text) - _LINE))
                cut = text[first : first + _LINE]
                text = ("…" if first else "") + cut + ("…" if first + _LINE < len(text) else "")
            yield Hit(path, number, column, text)
            at = end + 1
        return number + block.count(b"\n", counted)

    # ── limits ─────────────────────────────────────────────────────────────────────────────────

    def _in_time(self) -> None:
        if self._until is not None and time.monotonic() > self._until:
            message = f"the search took longer than {self._limits.max_seconds} seconds; narrow it"
            raise LimitExceeded(errno.ETIMEDOUT, message)

    def _count(self, number: int) -> None:
        most = self._limits.max_results
        if most is not None and number > most:
            raise LimitExceeded(errno.EDQUOT, f"more than {most} results; narrow the search")


def compile_search(pattern: str, *, ignore_case: bool, literal: bool) -> Search:
    """Make the search for a pattern.

    Raises:
        ValueError: the pattern is too long or no RE2 expression.
    """
    if len(pattern) > _PATTERN:
        message = f"the pattern is {len(pattern)} characters long; {_PATTERN} are possible"
        raise ValueError(message)
    if literal and not ignore_case:
        return _literal(pattern.encode("utf-8", "surrogateescape"))
    import re2  # noqa: PLC0415 - 6 ms, only a search needs it

    options = re2.Options()
    options.log_errors = False
    options.literal = literal
    options.case_sensitive = not ignore_case
    # A match never goes over a line end, whatever [^x] and \s mean: else each line of a long match
    # would cost the whole text again.
    options.never_nl = True
    try:
        # (?m): ^ and $ are those of a line, since whole blocks are searched.
        source = pattern if literal else f"(?m:{pattern})"
        compiled: Any = re2.compile(source.encode("utf-8", "surrogateescape"), options)
    except re2.error as error:
        reason = error.args[0].decode("utf-8", "replace") if isinstance(error.args[0], bytes) else error
        message = f"not a regular expression in RE2 syntax (no look-around, no back-references): {reason}"
        raise ValueError(message) from None
    if compiled.programsize > _PROGRAM:
        message = f"the pattern is too large: {compiled.programsize} steps, {_PROGRAM} are possible"
        raise ValueError(message)
    by_line = not literal and ("\\A" in pattern or "\\z" in pattern)

    def search(block: bytes, at: int) -> tuple[int, int] | None:
        if by_line and at < len(block):  # \A and \z are the ends of the text: search line by line
            while at < len(block):
                end = block.find(b"\n", at)
                end = len(block) if end < 0 else end
                if (found := compiled.search(block[at:end])) is not None:
                    return found.start() + at, found.end() + at
                at = end + 1
            return None
        found = compiled.search(block, at)
        return None if found is None else found.span()

    return search


def _literal(text: bytes) -> Search:
    if b"\n" in text:
        return lambda *_: None  # no line holds it

    def search(block: bytes, at: int) -> tuple[int, int] | None:
        found = block.find(text, at)
        return None if found < 0 else (found, found + len(text))

    return search


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

    def wanted(path: str) -> bool:
        parts = path.split("/")
        # A directory that matches selects what is below it, as "src/" should.
        return matcher.last_match(path, False) is not None or any(
            matcher.last_match("/".join(parts[:number]), True) is not None for number in range(1, len(parts))
        )

    return wanted
