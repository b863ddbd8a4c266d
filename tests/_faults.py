"""Break an operation of a jail at every system call that it makes, and look at what is left.

Two drivers do the breaking, each in a forked child. ``strace`` injects SIGKILL and error numbers below
Python, at the kernel's door. ``shim`` counts and breaks the calls of ``os`` and of the package's own
system calls from inside; it needs no tool and no permission.

A process that is killed before a call is in the state behind the call before it: what a program does
between two system calls leaves nothing on a disk.

Runs as a process of its own, small and quick to fork: it reads a plan (JSON) from standard input and
writes one JSON line for each point. To look at one point again::

    echo '{"driver": "shim", "operations": ["write"], "faults": ["KILL"], "only": 17}' |
        PYTHONPATH=src python tests/_faults.py FOLDER
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsjail._syscalls as syscalls
from fsjail import Jail, Policy, Rules

OPEN = Policy(write=Rules(allow=["*"]))
Tree = dict[str, tuple[str, int, bytes]]
ERRORS = ("EIO", "ENOSPC", "EPERM", "EINTR", "EXDEV")
DONE, RAISED, BROKEN = 0, 3, 4  # how a child ends; or it was killed

# Calls that change nothing on a disk and only multiply the points: memory, signals, the clock.
QUIET = (
    "brk,mmap,munmap,mprotect,mremap,madvise,futex,rt_sigaction,rt_sigprocmask,rt_sigreturn,kill,tgkill,"
    "getpid,gettid,getrandom,clock_gettime,clock_nanosleep,restart_syscall,ioctl,sigaltstack,prlimit64"
)
CHANGING = {
    "open",
    "openat",
    "openat2",
    "write",
    "pwrite64",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "rmdir",
    "fsync",
    "fdatasync",
    "syncfs",
    "ftruncate",
    "chmod",
    "fchmod",
    "fchmodat",
    "chown",
    "fchown",
    "fchownat",
    "lchown",
    "utimensat",
    "setxattr",
    "fsetxattr",
    "symlink",
    "symlinkat",
    "mknod",
    "mknodat",
    "copy_file_range",
    "flock",
}
# The same for the shim, as os names them.
SHIM_CHANGING = [
    "open",
    "write",
    "pwrite",
    "rename",
    "replace",
    "link",
    "unlink",
    "remove",
    "mkdir",
    "rmdir",
    "symlink",
    "mknod",
    "fsync",
    "fdatasync",
    "ftruncate",
    "chmod",
    "fchmod",
    "chown",
    "fchown",
    "utime",
    "setxattr",
    "copy_file_range",
]
SHIM_LOOKING = [
    "stat",
    "lstat",
    "fstat",
    "listdir",
    "scandir",
    "read",
    "pread",
    "readlink",
    "access",
    "close",
    "lseek",
    "listxattr",
    "getxattr",
]
SHIM_DIRECT = ("_renameat2", "_openat2", "_syncfs")
SYNCS = ("fsync", "fdatasync", "syncfs")


# ── the scene ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Operation:
    """What is broken.

    Attributes:
        act: the call.
        exact: whether names must be as before or as afterwards, all of them; else each for itself.
        gone: contents that may go for good.
        fresh: whether there is no trash folder yet.
        mounted: whether ``m`` is another file system.
        broken: name of an operation that a crash has broken before, and behind which call.
    """

    act: Callable[[Scene], object]
    exact: bool = True
    gone: frozenset[bytes] = frozenset()
    fresh: bool = False
    mounted: bool = False
    broken: tuple[str, str, int] | None = None


@dataclass
class Scene:
    """The root, the log beside it, and how they were before the operation and are after it."""

    folder: Path
    ids: dict[str, str] = field(default_factory=dict)
    opened: Jail | None = None

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def home(self) -> Path:
        return self.root / ".fsjail"

    def jail(self, durability: str = "none") -> Jail:
        state = self.folder / "state"
        return Jail(self.root, OPEN, state=state, actor="agent", durability=durability)  # type: ignore[arg-type]

    def make_template(self) -> None:
        """Build it once; each point gets a copy."""
        for path, mode, text in (
            ("f", 0o640, "older f\n"),
            ("g", 0o604, "the other g\n"),
            ("k", 0o600, "kept k\n"),
            ("d/x", 0o644, "in d x\n"),
            ("d/s/y", 0o755, "in d s y\n"),
            ("e/z", 0o644, "in e z\n"),
            ("t/v", 0o644, "kept t v\n"),
            ("m/a", 0o640, "on m a\n"),
            ("m/n/b", 0o644, "on m n b\n"),
        ):
            place = self.root / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
            place.chmod(mode)
        (self.root / "l").symlink_to("f")
        with self.jail() as jail:
            for name, change in (
                ("older", jail.write_text("f", "old f\n")),
                ("file", jail.delete("k")),
                ("tree", jail.delete("t")),
            ):
                assert change.saved is not None
                self.ids[name] = change.saved.id
        for name in ("root", "state"):
            os.rename(self.folder / name, self.folder / f"template-{name}")
        self.root.mkdir()

    def reset(self, operation: Operation) -> None:
        for name in os.listdir(self.root):
            if name == "m" and os.path.ismount(self.root / "m"):
                for below in os.listdir(self.root / "m"):
                    _remove(self.root / "m" / below)
            else:
                _remove(self.root / name)
        shutil.rmtree(self.folder / "state", ignore_errors=True)
        leave = shutil.ignore_patterns(".fsjail") if operation.fresh else None
        shutil.copytree(
            self.folder / "template-root", self.root, symlinks=True, dirs_exist_ok=True, ignore=leave
        )
        shutil.copytree(self.folder / "template-state", self.folder / "state")
        if operation.broken is not None:
            name, call, number = operation.broken
            code = in_child(self, OPERATIONS[name], lambda: shim(f"behind {call}", number, "KILL"))
            assert code == -signal.SIGKILL, f"{name} came to its end: {code}"

    def look(self) -> Tree:
        """Every name that an agent can see, and what the names beside them are."""
        found: Tree = {}
        for folder, folders, names in os.walk(self.root):
            if Path(folder) == self.root and ".fsjail" in folders:
                folders.remove(".fsjail")
            for name in (*folders, *names):
                path = os.path.join(folder, name)
                found[os.path.relpath(path, self.root)] = _entry(path)
        return found

    def kept(self, jail: Jail) -> tuple[Tree, list[str]]:
        """What the trash holds, by the names that it had, and the damaged ids."""
        found: Tree = {}
        damaged = []
        for number, item in enumerate(jail.trash.items()):
            if item.why == "damaged":
                damaged.append(item.id)
            top = self.home / "Trash" / "files" / item.id
            found[f"{number}:{item.path}"] = _entry(top)
            for folder, folders, names in os.walk(top):
                for name in (*folders, *names):
                    path = os.path.join(folder, name)
                    found[f"{number}:{item.path}/{os.path.relpath(path, top)}"] = _entry(path)
        return found, damaged


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _entry(path: os.PathLike[str] | str) -> tuple[str, int, bytes]:
    st = os.lstat(path)
    mode = stat.S_IMODE(st.st_mode)
    if stat.S_ISLNK(st.st_mode):
        return "link", 0, os.fsencode(os.readlink(path))
    if stat.S_ISDIR(st.st_mode):
        return "directory", mode, b""
    return "file", mode, Path(path).read_bytes()


# ── the operations ─────────────────────────────────────────────────────────────────────────────


def _open(scene: Scene) -> Jail:
    assert scene.opened is not None
    return scene.opened


def _stream(scene: Scene) -> None:
    with _open(scene).open("f", "w") as file:
        file.write("new f\n")


def _plain_write(scene: Scene) -> None:
    fd = os.open(scene.root / "f", os.O_WRONLY | os.O_TRUNC)
    os.write(fd, b"new f\n")
    os.close(fd)


def _plain_open(scene: Scene) -> None:
    with open(scene.root / "f", "w", encoding="ascii") as file:
        file.write("new f\n")


def _plain_temporary(scene: Scene) -> None:
    """As good as programs without a trash do it: the old content is lost by design."""
    name = scene.root / "f.tmp"
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.write(fd, b"new f\n")
    os.fsync(fd)
    os.close(fd)
    os.rename(name, scene.root / "f")


PURGED = frozenset({b"older f\n", b"kept k\n", b"kept t v\n"})

OPERATIONS: dict[str, Operation] = {
    "delete file": Operation(lambda s: _open(s).delete("f")),
    "delete tree": Operation(lambda s: _open(s).delete("d")),
    "delete link": Operation(lambda s: _open(s).delete("l")),
    "write": Operation(lambda s: _open(s).write_text("f", "new f\n")),
    "create": Operation(lambda s: _open(s).write_text("n", "new n\n")),
    "edit": Operation(lambda s: _open(s).edit("f", "old", "new")),
    "append": Operation(lambda s: _open(s).append_text("f", "more\n")),
    "stream": Operation(_stream),
    "copy onto": Operation(lambda s: _open(s).copy("g", "f", overwrite=True)),
    "copy tree": Operation(lambda s: _open(s).copy("d", "n")),
    "copy tree onto": Operation(lambda s: _open(s).copy("d", "e", overwrite=True), exact=False),
    "move": Operation(lambda s: _open(s).move("f", "n")),
    "move tree": Operation(lambda s: _open(s).move("d", "n")),
    "move onto": Operation(lambda s: _open(s).move("g", "f", overwrite=True)),
    "move tree onto": Operation(lambda s: _open(s).move("d", "e", overwrite=True), exact=False),
    "restore": Operation(lambda s: _open(s).trash.restore(s.ids["file"])),
    "restore tree": Operation(lambda s: _open(s).trash.restore(s.ids["tree"])),
    "restore swap": Operation(lambda s: _open(s).trash.restore(s.ids["older"], overwrite=True)),
    "purge": Operation(lambda s: _open(s).trash.purge(older_than_days=0), gone=PURGED),
    "undo": Operation(lambda s: _open(s).undo()),
    "first write": Operation(lambda s: _open(s).write_text("f", "new f\n"), fresh=True),
    "first delete": Operation(lambda s: _open(s).delete("d"), fresh=True),
    # A second crash while the first one is being mended.
    "recover write": Operation(lambda s: s.jail("full").close(), broken=("write", "_renameat2", 1)),
    "recover linked": Operation(lambda s: s.jail("full").close(), broken=("write", "link", 2)),
    "recover move onto": Operation(lambda s: s.jail("full").close(), broken=("move onto", "link", 1)),
    "recover purge": Operation(
        lambda s: s.jail("full").close(), broken=("purge", "rename", 1), gone=PURGED, exact=False
    ),
    # From and to another file system.
    "delete across": Operation(lambda s: _open(s).delete("m/a"), exact=False, mounted=True),
    "delete tree across": Operation(lambda s: _open(s).delete("m/n"), exact=False, mounted=True),
    "write across": Operation(lambda s: _open(s).write_text("m/a", "new a\n"), exact=False, mounted=True),
    "move across": Operation(lambda s: _open(s).move("f", "m/f"), exact=False, mounted=True),
    "move tree across": Operation(lambda s: _open(s).move("m/n", "n"), exact=False, mounted=True),
    "move onto across": Operation(
        lambda s: _open(s).move("f", "m/a", overwrite=True), exact=False, mounted=True
    ),
    "restore across": Operation(
        lambda s: _open(s).trash.restore(s.ids["tree"], to="m/t"), exact=False, mounted=True
    ),
    "swap across": Operation(
        lambda s: _open(s).trash.restore(s.ids["file"], to="m/a", overwrite=True), exact=False, mounted=True
    ),
    "recover across": Operation(
        lambda s: s.jail("full").close(), broken=("move tree across", "mkdir", 1), exact=False, mounted=True
    ),
}
CONTROLS: dict[str, Operation] = {
    "plain write": Operation(_plain_write),
    "plain open": Operation(_plain_open),
    "plain temporary": Operation(_plain_temporary),
    "plain remove": Operation(lambda s: os.remove(s.root / "f")),
    "plain rmtree": Operation(lambda s: shutil.rmtree(s.root / "d")),
}
ALL = OPERATIONS | CONTROLS


# ── children ───────────────────────────────────────────────────────────────────────────────────


def in_child(
    scene: Scene,
    operation: Operation,
    ready: Callable[[], None],
    watch: Callable[[int], object] | None = None,
) -> int:
    """Run the operation in a forked child: its exit code, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        code = BROKEN
        try:
            errors = os.open(scene.folder / "errors", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(errors, 2)
            if operation.broken is None and not operation.act.__name__.startswith("_plain"):
                scene.opened = scene.jail("full")
            ready()
            try:
                operation.act(scene)
                code = DONE
            except (OSError, KeyboardInterrupt):
                code = RAISED
                traceback.print_exc()
        except BaseException:  # noqa: BLE001 - told by its exit code
            traceback.print_exc()
        finally:
            os._exit(code)
    if watch is not None:
        watch(pid)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def shim(at: str, number: int, fault: str, calls: list[str] | None = None) -> None:
    """Break this process's own calls.

    Args:
        at: "before" or "behind" any call, "changing" for the changing ones only, or "behind NAME".
        number: the call, from 1.
        fault: KILL, an error name, or one with "+" for that call and every one after it.
        calls: takes the names of all calls, and nothing is broken.
    """
    left = [number]
    forever = fault.endswith("+")
    code = getattr(errno, fault.rstrip("+"), 0)
    only = at.removeprefix("behind ") if at.startswith("behind ") else None

    def due(name: str, changing: bool) -> bool:
        if calls is not None:
            if at != "changing" or changing:
                calls.append(name)
            return False
        if (at == "changing" and not changing) or (only is not None and name != only):
            return False
        left[0] -= 1
        return left[0] == 0 or (forever and left[0] < 0)

    def wrap(name: str, real: Any, changing: bool, direct: bool = False) -> Any:
        if name.lstrip("_") in SYNCS:  # milliseconds each, and no matter to who is killed
            real = lambda _fd: 0  # noqa: E731

        def call(*args: Any, **kwargs: Any) -> Any:
            if not due(name, changing):
                return real(*args, **kwargs)
            if code:
                if direct:  # as libc tells it
                    ctypes.set_errno(code)
                    return -1
                raise OSError(code, os.strerror(code))
            result = None
            if at.startswith("behind"):
                with suppress(OSError):
                    result = real(*args, **kwargs)
            if fault == "INT":  # as from Ctrl-C, which Python raises between two calls
                if name in {"open", "_openat2"} and isinstance(result, int):
                    os.close(result)
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

        return call

    eintr = fault.startswith("EINTR")  # Python itself calls again: only our direct calls can see it
    for name in SHIM_CHANGING:
        if hasattr(os, name):
            setattr(os, name, wrap(name, getattr(os, name), changing=not eintr))
    for name in SHIM_LOOKING:
        if hasattr(os, name):
            setattr(os, name, wrap(name, getattr(os, name), changing=False))
    fcntl.flock = wrap("flock", fcntl.flock, changing=not eintr)
    for name in SHIM_DIRECT:
        if getattr(syscalls, name) is not None:
            setattr(syscalls, name, wrap(name, getattr(syscalls, name), changing=True, direct=True))


class Strace:
    """Attach to a stopped child, let it go on, and break it."""

    def __init__(self, scene: Scene) -> None:
        self.output = scene.folder / "strace"
        self.program = shutil.which("strace") or "strace"

    def ready(self) -> None:
        with suppress(OSError, AttributeError):  # where only a parent may trace: let a sibling do it
            ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1 & (2**64 - 1)), 0, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)

    def attach(self, pid: int, *options: str) -> None:
        os.waitpid(pid, os.WUNTRACED)
        self.tracer = subprocess.Popen(
            [self.program, "-qq", "-o", str(self.output), *options, "-p", str(pid)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        status = f"/proc/{pid}/status"
        while self.tracer.poll() is None:
            with open(status, encoding="ascii") as file:
                if "\nTracerPid:\t0\n" not in file.read():
                    break
            time.sleep(0.0005)
        os.kill(pid, signal.SIGCONT)

    def end(self) -> None:
        assert self.tracer.stderr is not None
        text = self.tracer.stderr.read()
        self.tracer.stderr.close()
        code = self.tracer.wait(30)
        if code not in {0, -signal.SIGKILL} and text:
            message = f"strace failed: {text.decode(errors='replace').strip()}"
            raise RuntimeError(message)

    def calls(self) -> list[str]:
        lines = self.output.read_text(errors="replace").splitlines()
        names = [line.partition("(")[0].split()[-1] for line in lines if line[:1].isalnum() and "(" in line]
        return [name for name in names if not name.startswith(("+", "-"))]


def strace_reason(scene: Scene) -> str | None:
    """Why strace cannot be used here."""
    if shutil.which("strace") is None:
        return "there is no strace"
    done = subprocess.run(
        ["strace", "-qq", "-o", str(scene.folder / "probe"), "-e", "inject=exit_group:signal=KILL", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != -signal.SIGKILL:
        return f"strace may not trace or inject here: {done.stderr.strip() or done.returncode}"
    return None


# ── what must hold ─────────────────────────────────────────────────────────────────────────────


@dataclass
class Expected:
    before: Tree
    after: Tree
    contents: Counter[bytes]
    contents_after: Counter[bytes]
    places: set[tuple[str, bytes]]  # under which names each content may be known to the trash


def _count(*trees: Tree) -> Counter[bytes]:
    return Counter(content for tree in trees for kind, _, content in tree.values() if kind != "directory")


def _places(tree: Tree) -> set[tuple[str, bytes]]:
    return {(path.partition(":")[2] or path, content) for path, (_, _, content) in tree.items()}


def expect(scene: Scene, operation: Operation) -> Expected:
    """How it is without the operation, and with it."""
    scene.reset(operation)
    if operation.broken is not None:
        with scene.jail() as jail:
            jail.trash.recover()
            before, (kept, _) = scene.look(), scene.kept(jail)
        return Expected(before, before, _count(before, kept), _count(before, kept), _places(before | kept))
    with scene.jail() as jail:
        before, (kept, _) = scene.look(), scene.kept(jail)
    scene.reset(operation)
    code = in_child(scene, operation, lambda: None)
    assert code == DONE, (scene.folder / "errors").read_text()
    with scene.jail() as jail:
        after, (later, _) = scene.look(), scene.kept(jail)
    places = _places(before) | _places(kept) | _places(after)
    return Expected(before, after, _count(before, kept), _count(after, later), places)


def _torn(seen: Tree, expected: Expected) -> Iterator[str]:
    for path, value in seen.items():
        if ".fsjail-" not in path and value not in (expected.before.get(path), expected.after.get(path)):
            yield f"torn: {path} is {value!r}"


def _names(seen: Tree, expected: Expected, operation: Operation, code: int) -> Iterator[str]:
    yield from _torn(seen, expected)
    for path in expected.before.keys() & expected.after.keys():
        if path not in seen and operation.exact:  # else in the trash: the contents are counted
            yield f"missing: {path}"
    if operation.exact and seen not in (expected.before, expected.after):
        yield f"half: {sorted(seen)}"
    if code == DONE and seen != expected.after:
        yield "it said that it was done, and it was not"


def check(scene: Scene, operation: Operation, expected: Expected, code: int, fault: str = "") -> list[str]:
    """Look at what a broken operation has left, as the next process would find it."""
    problems = list(_torn(scene.look(), expected))
    if code == BROKEN:
        problems.append(f"broken: {(scene.folder / 'errors').read_text()[-1500:]}")
    with scene.jail() as jail:
        jail.trash.recover()
        seen, (kept, damaged) = scene.look(), scene.kept(jail)
        problems += [f"damaged: {name}" for name in damaged]
        problems += [f"debris: {path}" for path in seen if ".fsjail-" in path]
        problems += _names(seen, expected, operation, code)
        have = _count(seen, kept)
        problems += [
            f"lost: {content!r}"
            for content in expected.contents
            if content not in have and content not in operation.gone
        ]
        if (
            operation.exact and fault != "EXDEV"
        ):  # that makes it another file system: a copy too many may stay
            most = expected.contents | expected.contents_after
            problems += [f"twice: {content!r}" for content in have if have[content] > most[content]]
        places = expected.places
        problems += [f"misnamed: {place}" for place in _places(kept) if place[1] and place not in places]
        problems += _debris(scene)
        if not (verified := jail.audit.verify()):
            problems.append(f"log: {verified.problems}")
        jail.write_text("probe", "a jail that works\n")
        if not (verified := jail.audit.verify()):
            problems.append(f"log afterwards: {verified.problems}")
        if again := jail.trash.recover():
            problems.append(f"recovered twice: {again}")
    return problems


def _debris(scene: Scene) -> Iterator[str]:
    if not (scene.home / "stage").exists():
        return
    if left := os.listdir(scene.home / "stage"):
        yield f"debris in the stage: {left}"
    claims = {name.removesuffix(".trashinfo") for name in os.listdir(scene.home / "Trash" / "info")}
    if claims != (held := set(os.listdir(scene.home / "Trash" / "files"))):
        yield f"info and files differ: {sorted(claims ^ held)}"


# ── points ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Point:
    operation: str
    fault: str
    at: str  # for the shim
    number: int
    call: str


def points(scene: Scene, driver: str, name: str, faults: list[str]) -> list[Point]:
    """All points of an operation, found by letting it run unbroken."""
    scene.reset(ALL[name])
    if driver == "strace":
        return _strace_points(scene, name, faults)
    seen: dict[str, list[str]] = {}
    for at, fault in (("before", "KILL"), ("changing", "EIO"), ("direct", "EINTR")):
        scene.reset(ALL[name])
        found: list[str] = []
        log = scene.folder / "calls"

        def ready(at: str = at, fault: str = fault, found: list[str] = found, log: Path = log) -> None:
            end = os._exit
            shim("changing" if at == "direct" else at, 0, fault, found)

            def leave(code: int) -> None:
                log.write_text(" ".join(list(found)))
                end(code)

            os._exit = leave  # type: ignore[assignment]

        assert in_child(scene, ALL[name], ready) == DONE
        seen[at] = log.read_text().split()
        # What the log's own writing called is behind the operation's end: not counted.
    result = []
    for fault in faults:
        if fault in {"KILL", "INT"}:
            for at in ("before", "behind"):
                result += [Point(name, fault, at, n, call) for n, call in enumerate(seen["before"], 1)]
        elif fault == "EIO at any":
            result += [Point(name, "EIO", "before", n, call) for n, call in enumerate(seen["before"], 1)]
        else:
            calls = seen["direct" if fault.startswith("EINTR") else "changing"]
            result += [Point(name, fault, "changing", n, call) for n, call in enumerate(calls, 1)]
    return result


def _strace_points(scene: Scene, name: str, faults: list[str]) -> list[Point]:
    tracer = Strace(scene)
    code = in_child(scene, ALL[name], tracer.ready, lambda pid: tracer.attach(pid, "-e", f"trace=!{QUIET}"))
    tracer.end()
    assert code == DONE, f"{name} under strace: {code}"
    counts: Counter[str] = Counter()
    result = []
    for call in tracer.calls():
        counts[call] += 1  # strace counts each kind of call for itself
        result += [
            Point(name, fault, "", counts[call], call)
            for fault in faults
            if fault == "KILL" or call in CHANGING
        ]
    return result


def run(scene: Scene, driver: str, point: Point) -> int:
    """Reset, and break the operation at this point."""
    operation = ALL[point.operation]
    scene.reset(operation)
    if driver == "shim":
        return in_child(scene, operation, lambda: shim(point.at, point.number, point.fault))
    tracer = Strace(scene)
    what = "signal=KILL" if point.fault == "KILL" else f"error={point.fault}"
    inject = f"inject={point.call}:{what}:when={point.number}"
    # What is not traced is not broken. Syncs cost milliseconds, and do not matter to who is killed.
    syncs = [name for name in SYNCS if name != point.call]
    quick = f"inject={','.join(syncs)}:retval=0"
    trace = f"trace={','.join({point.call, *SYNCS})}"
    options = ("-e", trace, "-e", "signal=none", "-e", inject, "-e", quick)
    code = in_child(scene, operation, tracer.ready, lambda pid: tracer.attach(pid, *options))
    tracer.end()
    return code


def mount_beneath(scene: Scene) -> str | None:
    """Mount a tmpfs at ``m`` in a mount namespace of our own, which ends with this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_ns, new_user, private = 0x20000, 0x10000000, 0x44000
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(new_ns) != 0:
        if libc.unshare(new_ns | new_user) != 0:
            return f"no mount namespace can be had: {os.strerror(ctypes.get_errno())}"
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with suppress(FileNotFoundError):
                Path(f"/proc/self/{name}").write_text(text)
    (scene.root / "m").mkdir()
    place = os.fsencode(scene.root / "m")
    if (
        libc.mount(b"none", b"/", None, private, None) != 0
        or libc.mount(b"fsjail-test", place, b"tmpfs", 0, b"size=8m,mode=755") != 0
    ):
        return f"a tmpfs cannot be mounted here: {os.strerror(ctypes.get_errno())}"
    return None


def main() -> None:
    plan = json.load(sys.stdin)
    driver, faults = plan["driver"], plan["faults"]
    scene = Scene(Path(sys.argv[1]).resolve())
    scene.folder.mkdir(parents=True, exist_ok=True)
    os.umask(0o022)
    reason = strace_reason(scene) if driver == "strace" else None
    if reason is None:
        scene.make_template()
        if any(ALL[name].mounted for name in plan["operations"]):
            reason = mount_beneath(scene)
    if reason is not None:
        print(json.dumps({"skip": reason}))
        return
    chosen = [point for name in plan["operations"] for point in points(scene, driver, name, faults)]
    if "only" in plan:
        chosen = [point for point in chosen if point.number == plan["only"]]
    want = plan.get("want") or len(chosen)
    if want < len(chosen):  # an even spread, the same each time
        chosen = [chosen[index * len(chosen) // want] for index in range(want)]
    expected: dict[str, Expected] = {}
    for point in chosen:
        if point.operation not in expected:
            expected[point.operation] = expect(scene, ALL[point.operation])
        code = run(scene, driver, point)
        try:
            problems = check(scene, ALL[point.operation], expected[point.operation], code, point.fault)
        except Exception:  # noqa: BLE001 - the jail does not open or look any more: told as a problem
            problems = [f"unusable: {traceback.format_exc()[-1500:]}"]
        outcome = {DONE: "done", RAISED: "raised", BROKEN: "broken", -signal.SIGKILL: "killed"}
        line = {**vars(point), "driver": driver, "outcome": outcome.get(code, str(code))}
        if code == RAISED:
            line["error"] = (scene.folder / "errors").read_text().splitlines()[-1:]
        print(json.dumps({**line, "problems": problems}), flush=True)


if __name__ == "__main__":
    main()
