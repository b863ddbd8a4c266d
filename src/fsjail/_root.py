"""Root and Target: the only code that turns a name into a descriptor.

A name is judged and opened as one thing. There are two ways to resolve, and they give the same
answers:

* the fast path, one ``openat2`` with ``RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS``: success proves that
  no component was a link, so the name that was judged is the name that was opened;
* the walk, component by component over held descriptors, for names with a link or "..", and for
  systems without ``openat2``. Links are read and walked by us, never followed by the kernel, so a
  ``/proc`` magic link is only its text; ".." pops the stack of descriptors and is never opened, so a
  directory that is moved away meanwhile cannot lead out.

``FSJAIL_RESOLVER=walk`` in the environment turns the fast path off.

Does not stop: reading a hard link or a bind mount that somebody placed inside the root; a process
of the same user that works outside of the jail; the superuser.
"""

from __future__ import annotations

import errno
import os
import stat as stat_
from typing import TYPE_CHECKING, Self

from fsjail._errors import InvalidName, Moved, OutOfBounds
from fsjail._names import Request, lexical, split
from fsjail._selftest import (
    DIRECTORY,
    HOW_DIRECTORY,
    HOW_PARENT,
    HOW_READ,
    O_PATH,
    PATH,
    READ,
    self_test,
    turn_off,
)
from fsjail._syscalls import openat2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    OnName = Callable[[str], None]

MAX_NAME = 4095  # bytes; PATH_MAX less its NUL
MAX_LINKS = 40  # as Linux
_ASK_THE_WALK = {errno.ELOOP, errno.EXDEV, errno.ENOSYS, errno.EPERM, errno.E2BIG, errno.ENXIO}
MAX_HELD = 64  # descriptors that one walk holds
_PARSED_MAX = 8192
_PARSED_LONG = 256  # characters


class Target:
    """What a name leads to: a held parent directory and a leaf without a slash.

    Attributes:
        parent: descriptor of the directory that holds the leaf; only good inside ``with``.
        leaf: the last component, "." for the root itself.
        name: the canonical name below the root, by construction of the walk.
        st: ``lstat`` of the leaf, or of the open file; None if nothing is there.
        fd: descriptor opened for reading by :meth:`Root.open`, else -1.
        must_dir: the request demanded a directory.
        dot_end: the request ended in "." or "..".
        left: what a change has put there, for the log; None if nothing.
    """

    __slots__ = ("_owned", "dot_end", "fd", "leaf", "left", "must_dir", "name", "parent", "st")

    def __init__(
        self, parent: int, leaf: str, name: str, st: os.stat_result | None, *, owned: bool, fd: int = -1
    ) -> None:
        self.parent = parent
        self.leaf = leaf
        self.name = name
        self.st = st
        self.fd = fd
        self.must_dir = self.dot_end = False
        self.left: os.stat_result | None = None
        self._owned = owned

    @property
    def kind(self) -> bool | None:
        """True for a directory, False for another existing thing, None for a link or nothing."""
        if self.st is None or stat_.S_ISLNK(self.st.st_mode):
            return None
        return stat_.S_ISDIR(self.st.st_mode)

    def open(self, flags: int = READ) -> int:
        """Open the leaf itself, never what a link there points to.

        Raises:
            Moved: the leaf has become a link since it was judged.
            OSError: as open(2).
        """
        try:
            return os.open(self.leaf, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.parent)
        except OSError as error:
            # With O_DIRECTORY a link answers ENOTDIR.
            if error.errno in {errno.ELOOP, errno.ENOTDIR} and self._is_link():
                raise Moved from None
            raise

    def _is_link(self) -> bool:
        try:
            st = os.stat(self.leaf, dir_fd=self.parent, follow_symlinks=False)
        except OSError:
            return True  # gone again: look anew
        return stat_.S_ISLNK(st.st_mode)

    def close(self) -> None:
        """Close what the target holds."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        if self._owned:
            self._owned = False
            os.close(self.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Root:
    """A directory held open; resolves names beneath it.

    Args:
        path: the directory. Resolved once, here; swapping the path later changes nothing.
        resolver: "openat2" or "walk"; left out, ``FSJAIL_RESOLVER`` or what the machine offers.

    Raises:
        FileNotFoundError, NotADirectoryError: no such directory.
        OSError: this machine's primitives fail the start-up test (``ENOTSUP``).
    """

    def __init__(self, path: str | os.PathLike[str], *, resolver: str | None = None) -> None:
        self.given = os.path.abspath(os.fspath(path))
        self.real = os.path.realpath(self.given)
        wanted = resolver or os.environ.get("FSJAIL_RESOLVER") or "openat2"
        if wanted not in {"openat2", "walk"}:
            message = f"FSJAIL_RESOLVER is {wanted!r}; it can be 'openat2' or 'walk'"
            raise ValueError(message)
        self.fast = self_test() and wanted == "openat2"
        self.fd = os.open(self.real, O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        spellings = {split(self.given), split(self.real)}
        self._spellings = sorted(spellings, key=len, reverse=True)
        self._parsed: dict[str, Request] = {}

    def close(self) -> None:
        """Let go of the directory; calling it again does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    # ── names ──────────────────────────────────────────────────────────────────────────────────

    def parse(self, path: str | os.PathLike[str]) -> Request:
        """Take a name apart; no system call.

        Raises:
            InvalidName: empty, NUL, longer than 4095 bytes, or not encodable.
            OutOfBounds: absolute, and not below the root's own path (as given, or real).
            TypeError: not a ``str`` or ``PathLike[str]``.
        """
        asked = path if type(path) is str else _as_str(path)
        request = self._parsed.get(asked)
        if request is None:
            request = self._parse(asked)
            # Long ones are not kept, so that what an agent asks for cannot fill the memory.
            if len(asked) <= _PARSED_LONG and request.direct:
                if len(self._parsed) >= _PARSED_MAX:
                    self._parsed.clear()
                self._parsed[asked] = request
        return request

    def _parse(self, asked: str) -> Request:
        if not asked:
            raise InvalidName(errno.EINVAL, "the path is empty; the root itself is '.'", asked)
        if "\0" in asked:
            raise InvalidName(errno.EINVAL, "the path holds a NUL character", asked)
        try:
            size = len(os.fsencode(asked))
        except UnicodeEncodeError:
            raise InvalidName(errno.EINVAL, "the path cannot be encoded as a file name", asked) from None
        if size > MAX_NAME:
            message = f"the path is {size} bytes long; {MAX_NAME} are possible"
            raise InvalidName(errno.ENAMETOOLONG, message, asked)
        parts = split(asked)
        if asked.startswith("/"):
            below = self._below(parts)
            if below is None:
                raise _outside(asked)
            parts = below
        end = asked.rpartition("/")[2]
        dot_end = end in {".", ".."} or (not parts and end == "")
        return Request(asked, parts, must_dir=end in {"", ".", ".."}, dot_end=dot_end)

    def _below(self, parts: tuple[str, ...]) -> tuple[str, ...] | None:
        """The part of an absolute name below the root, or None; whole components are compared."""
        for spelling in self._spellings:
            if parts[: len(spelling)] == spelling:
                return parts[len(spelling) :]
        return None

    # ── resolving ──────────────────────────────────────────────────────────────────────────────

    def resolve(self, request: Request, on_name: OnName | None = None, *, follow: bool = True) -> Target:
        """Find the directory and leaf that a request leads to, and hold them.

        Args:
            request: from :meth:`parse`.
            on_name: called with every further name that a link brings up, before anything below it
                is touched; raises to refuse.
            follow: whether a link at the last component is followed.

        Raises:
            OutOfBounds: the name or a link in it leaves the root.
            OSError: as the kernel would answer (ENOENT, ENOTDIR, ELOOP, EACCES, ENAMETOOLONG).
            Moved: the tree changes faster than it can be walked.
        """
        if request.direct and self.fast:
            target = self._resolve_fast(request, follow=follow)
            if target is not None:
                return target
        return self._walk(request, on_name, follow=follow)

    def open(self, request: Request, on_name: OnName | None = None) -> Target:
        """Open a file or directory for reading; ``.fd`` and ``.st`` are of the open file.

        Raises:
            OSError: as :meth:`resolve` and open(2). A FIFO, socket or device comes back unopened from
                the walk; the fast path may have opened it for an instant, without waiting.
        """
        if request.direct and self.fast:
            try:
                fd = openat2(self.fd, request.raw, HOW_READ)
            except OSError as error:
                if not self._falls_back(error):
                    raise
            else:
                target = Target(self.fd, "", request.name or ".", None, owned=False, fd=fd)
                return self._opened(target, request)
        target = self._walk(request, on_name, follow=True)
        try:
            # What is no file or directory is not opened at all: even that can have an effect.
            if target.st is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            if stat_.S_ISREG(target.st.st_mode) or stat_.S_ISDIR(target.st.st_mode):
                target.fd = target.open()
        except BaseException:
            target.close()
            raise
        return self._opened(target, request)

    def _opened(self, target: Target, request: Request) -> Target:
        try:
            if target.fd >= 0:
                target.st = os.fstat(target.fd)
            if request.must_dir and not target.kind:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        except BaseException:
            target.close()
            raise
        return target

    def open_directory(self, name: str) -> int:
        """Open a directory by its canonical name for listing; no component may be a link.

        Raises:
            Moved: a component is a link or no directory any more.
            OSError: as open(2).
        """
        try:
            if self.fast:
                try:
                    return openat2(self.fd, os.fsencode(name), HOW_DIRECTORY)
                except OSError as error:
                    # ELOOP is an answer here: the name was canonical, so somebody has put a link there.
                    if error.errno == errno.ELOOP or not self._falls_back(error):
                        raise
            parent, leaf = reopen(self.fd, name.split("/")[:-1]), name.rpartition("/")[2]
            try:
                return os.open(leaf, DIRECTORY, dir_fd=parent)
            finally:
                os.close(parent)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENOTDIR}:
                raise Moved from None
            raise

    def _falls_back(self, error: OSError) -> bool:
        """Whether an openat2 failure means "ask the walk" rather than "this is the answer"."""
        if error.errno == errno.ENOSYS:
            self.fast = False
            turn_off()
        # EPERM: a seccomp filter that came later; ELOOP, EXDEV: a link is in the way; ENXIO: a socket,
        # or a device without a driver, which the walk does not open.
        return error.errno in _ASK_THE_WALK

    def _resolve_fast(self, request: Request, *, follow: bool) -> Target | None:
        if not request.parts:
            return Target(self.fd, ".", ".", os.stat(".", dir_fd=self.fd), owned=False)
        leaf, parent, owned = request.parts[-1], self.fd, False
        if len(request.parts) > 1:
            try:
                parent = openat2(self.fd, os.fsencode("/".join(request.parts[:-1])), HOW_PARENT)
            except OSError as error:
                if self._falls_back(error):
                    return None
                raise
            owned = True
        target = Target(parent, leaf, request.name or ".", None, owned=owned)
        try:
            target.st = _lstat(leaf, parent)
            if target.st is not None and stat_.S_ISLNK(target.st.st_mode) and (follow or request.dot_end):
                target.close()
                return None
            _demand_directory(target, request)
        except BaseException:
            target.close()
            raise
        return target

    def _walk(self, request: Request, on_name: OnName | None, *, follow: bool) -> Target:
        stack = _Stack(self.fd)
        todo = list(reversed(request.parts))
        must_dir, links = request.must_dir, 0
        try:
            while todo:
                part = todo.pop()
                if part == "..":
                    if not stack.names:
                        raise _outside(request.asked)
                    stack.pop()
                    continue
                try:
                    fd = os.open(part, PATH, dir_fd=stack.top)
                except FileNotFoundError:
                    if todo:
                        raise
                    return stack.target(part, None)
                try:
                    st = os.fstat(fd)
                    if stat_.S_ISLNK(st.st_mode):
                        if not todo and not follow and not request.dot_end:
                            target = stack.target(part, st)
                            _demand_directory(target, request)
                            return target
                        links += 1
                        if links > MAX_LINKS:
                            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                        text = os.readlink("", dir_fd=fd)
                        must_dir = must_dir or (not todo and text.endswith(("/", "/.", "/..")))
                        self._expand(text, part, stack, todo, request, on_name)
                    elif todo:
                        if not stat_.S_ISDIR(st.st_mode):
                            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
                        stack.push(part, fd)
                        fd = -1
                    else:
                        if must_dir and not stat_.S_ISDIR(st.st_mode):
                            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
                        return stack.target(part, st)
                finally:
                    if fd >= 0:
                        os.close(fd)
            return stack.here()
        finally:
            stack.close()

    def _expand(
        self, text: str, part: str, stack: _Stack, todo: list[str], request: Request, on_name: OnName | None
    ) -> None:
        """Put a link's text in place of its name, and tell the names that this brings up."""
        rest = tuple(reversed(todo))
        names = [lexical(stack.names, (part, *rest))]
        parts = split(text)
        if text.startswith("/"):
            below = self._below(parts)
            if below is None:
                raise _outside(request.asked)
            parts = below
            stack.reset()
        names.append(lexical(stack.names, (*parts, *rest)))
        if on_name is not None:
            for name, passed in names:
                for each in passed:
                    on_name(each)
                if name is not None:
                    on_name(name)
        todo.extend(reversed(parts))


class _Stack:
    """The directories that a walk stands in, held open; at most MAX_HELD of them at once."""

    def __init__(self, root: int) -> None:
        self._root = root
        self.names: list[str] = []
        self._fds: list[int] = []

    @property
    def top(self) -> int:
        return self._fds[-1] if self._fds else self._root

    def push(self, name: str, fd: int) -> None:
        self.names.append(name)
        self._fds.append(fd)
        if len(self._fds) > MAX_HELD and self._fds[-MAX_HELD - 1] >= 0:
            os.close(self._fds[-MAX_HELD - 1])
            self._fds[-MAX_HELD - 1] = -1

    def pop(self) -> None:
        self.names.pop()
        _close(self._fds.pop())
        if self._fds and self._fds[-1] < 0:
            self._fds[-1] = reopen(self._root, self.names)

    def reset(self) -> None:
        self.close()
        self.names.clear()
        self._fds.clear()

    def target(self, leaf: str, st: os.stat_result | None) -> Target:
        """A target below the top directory, which it takes over."""
        name = "/".join((*self.names, leaf))
        if not self._fds:
            return Target(self._root, leaf, name, st, owned=False)
        self.names.pop()
        return Target(self._fds.pop(), leaf, name, st, owned=True)

    def here(self) -> Target:
        """The top directory itself as a target."""
        if not self.names:
            return Target(self._root, ".", ".", os.stat(".", dir_fd=self._root), owned=False)
        leaf, st = self.names[-1], os.fstat(self.top)
        self.pop()
        return self.target(leaf, st)

    def close(self) -> None:
        for fd in self._fds:
            _close(fd)


def _as_str(path: object) -> str:
    asked = os.fspath(path)  # type: ignore[call-overload]  # its TypeError is the answer for no path at all
    if not isinstance(asked, str):
        message = f"a path is a str or PathLike[str], not {type(asked).__name__}"
        raise TypeError(message)
    return asked


def _lstat(leaf: str, parent: int) -> os.stat_result | None:
    try:
        return os.stat(leaf, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _demand_directory(target: Target, request: Request) -> None:
    """A trailing slash demands a real directory; "link/" must never stand for what it points to."""
    if request.must_dir and target.st is not None and not target.kind:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


def reopen(root: int, names: Sequence[str]) -> int:
    """Open a directory by canonical components; no link is followed on the way."""
    fd = os.open(".", PATH, dir_fd=root)
    for name in names:
        if name in {"", ".", ".."}:  # no canonical name; it may come from a planted file
            os.close(fd)
            raise Moved
        try:
            below = os.open(name, PATH, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
        if not stat_.S_ISDIR(os.fstat(fd).st_mode):
            os.close(fd)
            raise Moved
    return fd


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)


def _outside(asked: str) -> OutOfBounds:
    return OutOfBounds(errno.EXDEV, "the path leads outside the root", asked)
