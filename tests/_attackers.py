"""Attackers and scenes that the security tests share.

The live attackers are real second processes: they swap names in a tight loop while the test works. This
file is also their program (`python _attackers.py MODE A B SECONDS`), so it imports only the standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import pickle
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECRET = "SECRET"
RESOLVERS = ("openat2", "walk")

AT_FDCWD = -100
RENAME_EXCHANGE = 2
SYS_OPENAT2 = 437
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08

_libc = ctypes.CDLL(None, use_errno=True)


# -- system calls that Python does not offer -----------------------------------------------------------


def rename_exchange(first: str | bytes, second: str | bytes) -> None:
    """Exchange two names in one step, as the swap attacks do."""
    if _libc.renameat2(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def openat2(dir_fd: int, path: str | bytes, flags: int, resolve: int) -> int:
    """Open a name with the kernel's own confinement; the oracle of the fuzz test."""
    how = ctypes.create_string_buffer(struct.pack("QQQ", flags | os.O_CLOEXEC, 0, resolve), 24)
    while True:
        fd = _libc.syscall(SYS_OPENAT2, dir_fd, os.fsencode(path), how, 24)
        if fd >= 0:
            return fd
        code = ctypes.get_errno()
        if code != errno.EAGAIN:
            raise OSError(code, os.strerror(code))


def can_exchange(folder: Path) -> str:
    """Tell why names cannot be exchanged in a folder; empty where they can."""
    if not hasattr(_libc, "renameat2"):
        return "the C library has no renameat2"
    first, second = folder / "probe-1", folder / "probe-2"
    first.touch()
    second.touch()
    try:
        rename_exchange(str(first), str(second))
    except OSError as error:
        return f"RENAME_EXCHANGE does not work here: {error}"
    finally:
        first.unlink()
        second.unlink()
    return ""


def can_openat2() -> str:
    """Tell why openat2 cannot be called on this machine; empty where it can."""
    try:
        os.close(openat2(AT_FDCWD, ".", os.O_PATH, RESOLVE_BENEATH))
    except OSError as error:
        return f"openat2 does not work here: {error}"
    return ""


# -- scenes --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scene:
    """A fresh BASE: the jail's root, the outside with its secret, and a state folder apart from both."""

    base: Path
    root: Path
    outside: Path
    state: Path

    def fill(self, text: str) -> str:
        """Replace the place holders of the case files."""
        return (
            text.replace("{ROOT}", str(self.root))
            .replace("{OUT}", str(self.outside))
            .replace("{BASE}", str(self.base))
        )

    def around(self) -> dict[str, tuple[object, ...]]:
        """Photograph everything in BASE that is not the root: what no call may change."""
        return snapshot(self.base, skip={"root"})


def make_scene(folder: Path) -> Scene:
    """Make BASE/root and BASE/outside with its secret below a folder."""
    base = folder / "BASE"
    scene = Scene(base, base / "root", base / "outside", folder / "state")
    for made in (folder, base, scene.root, scene.outside, scene.outside / "dir", scene.state):
        made.mkdir(exist_ok=True)
    (scene.outside / "secret").write_text(SECRET)
    return scene


def build(base: Path, steps: list[dict[str, Any]], fill: Callable[[str], str]) -> None:
    """Carry out the `setup` or `after_open` steps of a path case."""
    for step in steps:
        path = base / step["path"]
        if step["op"] != "rmtree":
            path.parent.mkdir(parents=True, exist_ok=True)
        match step["op"]:
            case "mkdir":
                path.mkdir(parents=True, exist_ok=True)
            case "file":
                path.write_text(step["data"])
            case "symlink":
                os.symlink(fill(step["target"]), path)
            case "hardlink":
                os.link(base / step["target"], path)
            case "fifo":
                os.mkfifo(path)
            case "socket":
                make_socket(path)
            case "chmod":
                path.chmod(step["mode"])
            case "unlink":
                path.unlink()
            case "rmtree":
                shutil.rmtree(path)
            case other:
                raise AssertionError(f"unknown step {other}")


def make_socket(path: Path) -> None:
    """Leave the name of a UNIX socket; the address is given relative to the folder, for its 107 bytes."""
    before = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.chdir(path.parent)
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.fchdir(before)
        os.close(before)


def snapshot(
    folder: Path | str, *, skip: set[str] | frozenset[str] = frozenset(), times: bool = True
) -> dict[str, tuple[object, ...]]:
    """Photograph a tree: names, kinds, modes, owners, times and contents (link counts and ctime left out).

    Args:
        folder: the tree's top; its own entry is ".".
        skip: names directly below the top that are left out.
        times: also compare modification times, of directories too; a skipped name leaves out the top's.
    """
    seen: dict[str, tuple[object, ...]] = {}

    def add(parent: int, leaf: str, name: str, *, stamp: bool) -> None:
        st = os.stat(leaf, dir_fd=parent, follow_symlinks=False)
        facts: tuple[object, ...] = (st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns if stamp else None)
        try:
            if stat.S_ISREG(st.st_mode):
                facts += (st.st_size, hashlib.sha256(_content(parent, leaf)).hexdigest())
            elif stat.S_ISLNK(st.st_mode):
                facts += (os.readlink(leaf, dir_fd=parent),)
            elif stat.S_ISDIR(st.st_mode):
                fd = os.open(leaf, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
                try:
                    for entry in sorted(os.listdir(fd)):
                        if name != ".":
                            add(fd, entry, f"{name}/{entry}", stamp=times)
                        elif entry not in skip:
                            add(fd, entry, entry, stamp=times)
                finally:
                    os.close(fd)
        except PermissionError:
            facts += ("closed to us",)
        seen[name] = facts

    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        add(top, ".", ".", stamp=times and not skip)
    finally:
        os.close(top)
    return seen


def _content(parent: int, leaf: str) -> bytes:
    with open(os.open(leaf, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=parent), "rb") as file:
        return file.read()


def names_in(
    folder: Path | str, *, skip: set[str] | frozenset[str] = frozenset()
) -> dict[str, tuple[object, ...]]:
    """Photograph a tree without its times, to compare two trees built alike."""
    return snapshot(folder, skip=skip, times=False)


def holders_of(text: str, folder: Path) -> list[str]:
    """Name every regular file below a folder whose bytes hold a text; links are not followed."""
    needle, found = text.encode(), []
    if not folder.is_dir():
        return []
    for top, _, files, fd in os.fwalk(folder):  # by descriptors: a tree may be deeper than a path is long
        for name in files:
            with contextlib.suppress(PermissionError):
                if stat.S_ISREG(os.lstat(name, dir_fd=fd).st_mode) and needle in _content(fd, name):
                    found.append(os.path.relpath(f"{top}/{name}", folder))
    return sorted(found)


# -- answers -------------------------------------------------------------------------------------------

_BY_ERRNO = {
    errno.ENOENT: "notfound",
    errno.ENOTDIR: "notdir",
    errno.EISDIR: "isdir",
    errno.EEXIST: "exists",
    errno.ENOTEMPTY: "notempty",
    errno.ELOOP: "loop",
    errno.ENAMETOOLONG: "toolong",
    errno.EINVAL: "invalid",
    errno.EPERM: "notpermitted",
    errno.EACCES: "notpermitted",
    errno.EAGAIN: "again",  # the name kept changing; only an attacker can bring that about
}


def outcome(error: BaseException | None) -> str:
    """Name the class of an answer: `ok`, `denied`, `notfound`, …; anything unforeseen by its repr."""
    from fsjail._errors import AccessDenied, JailError, NotRegularFile

    if error is None:
        return "ok"
    if isinstance(error, AccessDenied):
        return "denied"
    if isinstance(error, NotRegularFile):
        return "notregular"
    if isinstance(error, OSError) and error.errno in _BY_ERRNO:
        return _BY_ERRNO[error.errno]
    if isinstance(error, JailError) and not isinstance(error, OSError):
        return type(error).__name__
    return repr(error)


def attempt(call: Callable[[], object]) -> tuple[BaseException | None, object]:
    """Run a call and hand back its error, or None, and its value; other errors than the two foreseen pass."""
    from fsjail._errors import JailError

    try:
        return None, call()
    except (JailError, OSError) as error:
        return error, None


def assert_clean(error: BaseException, scene: Scene, *given: str) -> None:
    """Demand of an error that it tells nothing of the host and survives pickling.

    Args:
        error: what a call raised.
        scene: the scene whose host path must not be told.
        given: the caller's own paths, which may be repeated in the text.
    """
    for text in (str(error), *map(str, error.args), str(getattr(error, "filename", ""))):
        rest = text
        for own in sorted(given, key=len, reverse=True):
            if own:
                rest = rest.replace(repr(own)[1:-1], "").replace(own, "")
        assert str(scene.base) not in rest, f"the host's path is told: {error!r}"
        assert SECRET not in rest, f"the secret is told: {error!r}"
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert back.args == error.args
    if isinstance(error, OSError):
        assert (back.errno, back.filename) == (error.errno, error.filename)


def text_of(value: object) -> str:
    """Spell out everything that a call handed back, for the search for the secret."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, (list, tuple)):
        return " ".join(map(text_of, value))
    return str(value)


def pick_resolver(monkeypatch: Any, resolver: str) -> None:
    """Choose the resolver for every Root made from here on."""
    if resolver == "walk":
        monkeypatch.setenv("FSJAIL_RESOLVER", "walk")
    else:
        monkeypatch.delenv("FSJAIL_RESOLVER", raising=False)


def in_child(work: Callable[[], object]) -> object:
    """Run a function in a forked process and hand back its value; its failure fails the test.

    For what cannot be taken back in a process: dropped privileges, resource limits.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            try:
                answer: tuple[bool, object] = (True, work())
            except BaseException:  # noqa: BLE001 - the parent reports it
                answer = (False, traceback.format_exc())
            with os.fdopen(writer, "wb") as pipe:
                pickle.dump(answer, pipe)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    assert data, "the child process died without an answer"
    done, value = pickle.loads(data)
    assert done, value
    return value


def drop_to_nobody() -> None:
    """Give up root's rights for good; for use in a child only."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


@contextlib.contextmanager
def watchdog(seconds: float = 5.0) -> Iterator[None]:
    """Fail a call that hangs instead of hanging with it."""

    def bark(_signal: int, _frame: object) -> None:
        raise AssertionError(f"no answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, bark)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def open_descriptors() -> dict[int, str]:
    """List this process's descriptors with what they point at."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own descriptor is gone by now
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


# -- live attackers ------------------------------------------------------------------------------------


class Attacker:
    """A second process that swaps names until it is told to stop.

    It always stops where it began: after an even number of steps. It ends by itself after `seconds`
    and with its parent.

    Args:
        mode: "exchange" swaps the two names; "bounce" renames the first to the second and back.
        first: a host path.
        second: a host path.
        seconds: the longest life.
    """

    def __init__(self, mode: str, first: Path, second: Path, *, seconds: float = 120.0) -> None:
        self._argv = [sys.executable, "-S", "-E", __file__, mode, str(first), str(second), str(seconds)]
        self._process: subprocess.Popen[str] | None = None
        self.swaps = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._argv, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", "the attacker did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> int:
        """End the process and return how many swaps it made."""
        if self._process is not None:
            self._process.terminate()
            out, _ = self._process.communicate(timeout=30)
            self.swaps = int(out.split()[-1])
            self._process = None
        return self.swaps


def _steps(mode: str, first: bytes, second: bytes) -> tuple[Callable[[], int], Callable[[], int]]:
    """Give the attacker's two half steps; each returns 0 where it worked."""
    if mode == "exchange":
        swap = _libc.renameat2
        there = back = lambda: int(swap(AT_FDCWD, first, AT_FDCWD, second, RENAME_EXCHANGE))
        return there, back
    if mode == "bounce":
        move = _libc.rename
        return (lambda: int(move(first, second))), (lambda: int(move(second, first)))
    raise SystemExit(f"unknown mode {mode}")


def _attack(mode: str, first: str, second: str, seconds: str) -> None:
    _libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: never outlive the test
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stopped.append(number))
    there, back = _steps(mode, os.fsencode(first), os.fsencode(second))
    end = time.monotonic() + float(seconds)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    count = 0
    while not stopped and time.monotonic() < end:
        for _ in range(50):
            if there() == 0:  # the names may be missing for a moment: the jail moved one, the test remakes it
                while back() != 0 and not stopped and time.monotonic() < end:
                    pass
                count += 2
            if stopped:
                break
    sys.stdout.write(f"{count}\n")


if __name__ == "__main__":
    _attack(*sys.argv[1:5])
