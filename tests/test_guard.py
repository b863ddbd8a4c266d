"""The guard: raw calls of this process, each first without it, where it must succeed, and then with it."""

# ruff: noqa: SIM115 - what is opened here is mostly refused
from __future__ import annotations

import _pyio
import _thread
import asyncio
import codecs
import concurrent.futures
import contextlib
import contextvars
import ctypes
import dbm.dumb
import errno
import fileinput
import functools
import gc
import glob
import importlib.machinery
import importlib.util
import io
import itertools
import linecache
import multiprocessing
import os
import pickle
import posix
import runpy
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import threading
import tokenize
import traceback
import types
import zipfile
import zoneinfo
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fsjail
from fsjail import AccessDenied, Jail, OutOfBounds, Policy, PolicyDenied, Rules, _hooked, _rawcalls, _scope
from fsjail._decision import OF_GUARD, Decision
from fsjail.tools import file_tools

SECRET = "SECRET-7f3a"
SOURCE = Path(fsjail.__file__).parent.parent
PLACES = ("work", "private", "plain", "outside", "extra")
real_open, real_start = os.open, _thread.start_new_thread


@dataclass
class World:
    """In the root `work` may be written, `plain` read, `private` neither; `extra` is in allow_outside."""

    base: Path
    jail: Jail
    seen: int = 0

    def __getitem__(self, place):
        return self.base / ("" if place in {"outside", "extra", "root"} else "root") / place

    def guard(self, mode="block", **more):
        return self.jail.guard(mode, allow_outside=[self["extra"]], **more)

    def take(self):
        """What the guards have recorded since the last time: denied, allowed."""
        events = [event for event in self.jail.audit.events() if event.seq > self.seen]
        self.seen = max([event.seq for event in events], default=self.seen)
        guards = [event for event in events if event.layer == "guard"]
        return [e for e in guards if e.decision == "deny"], [e for e in guards if e.decision == "allow"]


def database():
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.execute("create table t(x)")
        db.execute("insert into t values (?)", [SECRET])
        db.commit()
        return db.serialize()


DATABASE = database()


def fill(folder):
    """The same content everywhere, so that an attack does not know where it is."""
    folder.mkdir()
    (folder / "f").write_text(SECRET)
    (folder / "g").write_text("other")
    (folder / "mod.py").write_text(f"VALUE = {SECRET!r}\n")
    (folder / "empty").mkdir()
    (folder / "sub").mkdir()
    (folder / "sub" / "x").write_text(SECRET)
    with zipfile.ZipFile(folder / "z.zip", "w") as archive:
        archive.writestr("inner", SECRET)
    (folder / "db").write_bytes(DATABASE)


@pytest.fixture
def world(tmp_path, monkeypatch):
    base = tmp_path / "B"
    (base / "root").mkdir(parents=True)
    made = World(base, None)
    for place in PLACES:
        fill(made[place])
    policy = Policy(read=Rules(deny=["private/"]), write=Rules(allow=["work/"]))
    with Jail(base / "root", policy, state=tmp_path / "state") as jail:
        made.jail = jail
        monkeypatch.chdir(base / "root")
        yield made
    assert not _scope.ENTRIES, "a guard was left behind"


def fingerprint(folder):
    """Everything that a change of a tree changes."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        st_ = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(st_.st_mode) else b""
        found[str(path)] = (st_.st_mode, st_.st_size, st_.st_mtime_ns, st_.st_ctime_ns, st_.st_ino, content)
    return found


class Spelled:
    """A PathLike of an agent's own."""

    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return str(self.path)


class Text(str):
    """A text that lies about itself to whoever asks by its methods."""

    __slots__ = ()
    startswith = endswith = lambda *_: True
    __eq__ = __contains__ = lambda *_: True
    __hash__ = str.__hash__
    encode = rpartition = split = lambda *_: []


@contextlib.contextmanager
def folder_fd(path):
    fd = real_open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def by_os_open(path, **more):
    fd = os.open(path, os.O_RDONLY, **more)
    try:
        return os.read(fd, 100).decode()
    finally:
        os.close(fd)


def by_folder(call):
    """An attack with a name relative to a descriptor that was open before the guard."""

    def attack(folder):
        with folder_fd(folder) as fd:
            return call(fd)

    return attack


def by_fd_of(name, flags, call):
    def attack(folder):
        fd = os.open(folder / name, flags)
        try:
            return call(fd)
        finally:
            os.close(fd)

    return attack


def closing(opened):
    with opened as file:
        return file.read()


def query(target, **more):
    with contextlib.closing(sqlite3.connect(target, **more)) as db:
        return str(db.execute("select x from t").fetchall())


def in_thread(call):
    """The answer or the error of a call in a thread of its own."""
    future = concurrent.futures.Future()

    def work():
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - it is raised again where it is awaited
            future.set_exception(error)

    threading.Thread(target=work).start()
    return future.result(timeout=30)


READS = {
    "open": lambda d: closing(open(d / "f")),
    "open str": lambda d: closing(open(f"{d}/f")),
    "open bytes": lambda d: closing(open(os.fsencode(d) + b"/f")),
    "open PathLike": lambda d: closing(open(Spelled(d / "f"))),
    "open str subclass": lambda d: closing(open(Text(f"{d}/f"))),
    "open //": lambda d: closing(open(f"/{d}//./sub/../f")),
    "open opener": lambda d: closing(open("f", opener=lambda _, flags: os.open(d / "f", flags))),
    "io.open": lambda d: closing(io.open(d / "f")),  # noqa: UP020
    "io.FileIO": lambda d: closing(io.FileIO(f"{d}/f")),
    "io.open_code": lambda d: closing(io.open_code(f"{d}/f")),
    "_pyio.open": lambda d: closing(_pyio.open(f"{d}/f")),
    "codecs.open": lambda d: closing(codecs.open(f"{d}/f")),
    "os.open": lambda d: by_os_open(d / "f"),
    "os.open dir_fd": by_folder(lambda fd: by_os_open("f", dir_fd=fd)),
    "os.open dir_fd ..": by_folder(lambda fd: by_os_open("sub/../f", dir_fd=fd)),
    "posix.open dir_fd": by_folder(lambda fd: closing(open(posix.open("f", os.O_RDONLY, dir_fd=fd)))),
    "/proc/self/fd": by_folder(lambda fd: closing(open(f"/proc/self/fd/{fd}/f"))),
    "/dev/fd": by_folder(lambda fd: closing(open(f"/dev/fd/{fd}/sub/../f"))),
    "/proc/self/root": lambda d: closing(open(f"/proc/self/root{d}/f")),
    "Path.read_text": lambda d: (d / "f").read_text(),
    "fileinput": lambda d: "".join(fileinput.input([d / "f"])),
    "linecache": lambda d: "".join(linecache.updatecache(f"{d}/f")),
    "tokenize": lambda d: closing(tokenize.open(f"{d}/f")),
    "loader.get_data": lambda d: importlib.machinery.SourceFileLoader("m", f"{d}/f").get_data(f"{d}/f"),
    "loader of a module": lambda d: pytest.__loader__.get_data(f"{d}/f"),
    "runpy": lambda d: runpy.run_path(f"{d}/mod.py")["VALUE"],
    "exec_module": lambda d: load(f"{d}/mod.py").VALUE,
    "zipfile": lambda d: zipfile.ZipFile(d / "z.zip").read("inner"),
    "copyfile": lambda d: shutil.copyfile(d / "f", Path("../extra/copy").absolute()).read_text(),
    "sqlite3": lambda d: query(f"file:{d}/db?mode=ro", uri=True),
    "sqlite3 localhost": lambda d: query(f"file://localhost{d}/db?mode=ro&x=y", uri=True),
    "sqlite3 %": lambda d: query(f"file:{d}/%64b?mode=ro", uri=True),
    "thread": lambda d: in_thread(lambda: closing(open(d / "f"))),
    "empty context": lambda d: closing(contextvars.Context().run(open, d / "f")),
    "to_thread": lambda d: closing(asyncio.run(to_thread(open, d / "f"))),
    "os.listdir": lambda d: SECRET * ("f" in os.listdir(d)),
    "os.listdir bytes": lambda d: SECRET * (b"f" in os.listdir(os.fsencode(d))),
    "os.listdir fd": by_folder(lambda fd: SECRET * ("f" in os.listdir(fd))),
    "os.scandir": lambda d: SECRET * ("f" in [entry.name for entry in os.scandir(d)]),
    "os.scandir fd": by_folder(lambda fd: SECRET * ("f" in [entry.name for entry in os.scandir(fd)])),
    "iterdir": lambda d: SECRET * (d / "f" in list(d.iterdir())),
    "glob": lambda d: SECRET * (f"{d}/f" in glob.glob(f"{d}/*")),
    "glob root_dir": lambda d: SECRET * ("f" in glob.glob("*", root_dir=d)),
    "glob dir_fd": by_folder(lambda fd: SECRET * ("f" in glob.glob("*", dir_fd=fd))),
    "Path.glob": lambda d: SECRET * (d / "f" in list(d.glob("*"))),
    "Path.rglob": lambda d: SECRET * (d / "sub/x" in list(d.rglob("*"))),
    "os.walk": lambda d: SECRET * any("f" in files for _, _, files in os.walk(d)),
    "os.fwalk": lambda d: SECRET * any("f" in files for _, _, files, _ in os.fwalk(d)),
    "os.fwalk dir_fd": by_folder(lambda fd: SECRET * ("x" in next(os.fwalk("sub", dir_fd=fd))[2])),
    "chdir": lambda d: (os.chdir(d), closing(open("f")))[1],
    "fchdir": by_folder(lambda fd: (os.fchdir(fd), closing(open("f")))[1]),
}  # fmt: skip


async def to_thread(call, *args):
    return await asyncio.to_thread(call, *args)


def load(path):
    spec = importlib.util.spec_from_file_location("guard_test_module", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(path, mode="w"):
    with open(path, mode) as file:
        file.write("changed" if "b" not in mode else b"changed")


def os_write(path, flags, **more):
    fd = os.open(path, flags, 0o600, **more)
    try:
        os.write(fd, b"changed")
    finally:
        os.close(fd)


def change_database(target, **more):
    with contextlib.closing(sqlite3.connect(target, **more)) as db, db:
        db.execute("insert into t values ('changed')")


def archive(folder):
    with tarfile.open(folder / "new.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("inner"))


CHANGES = {
    "open w": lambda d: write(d / "f"),
    "open a": lambda d: write(d / "f", "a"),
    "open x": lambda d: write(d / "new", "x"),
    "open r+": lambda d: write(d / "f", "r+"),
    "open wb": lambda d: write(os.fsencode(d / "f"), "wb"),
    "open not utf-8": lambda d: write(os.fsencode(d) + b"/\xff\n"),
    "io.FileIO": lambda d: io.FileIO(f"{d}/new", "w").close(),
    "os.open": lambda d: os_write(d / "f", os.O_WRONLY),
    "os.open O_TRUNC": lambda d: os.close(os.open(d / "f", os.O_RDONLY | os.O_TRUNC)),
    "os.open O_CREAT": lambda d: os.close(os.open(d / "new", os.O_CREAT)),
    "os.open dir_fd": by_folder(lambda fd: os_write("new", os.O_CREAT | os.O_WRONLY, dir_fd=fd)),
    "os.remove": lambda d: os.remove(d / "f"),
    "os.unlink dir_fd": by_folder(lambda fd: os.unlink("f", dir_fd=fd)),
    "Path.unlink": lambda d: (d / "f").unlink(),
    "os.rmdir": lambda d: os.rmdir(d / "empty"),
    "os.rmdir dir_fd": by_folder(lambda fd: os.rmdir("empty", dir_fd=fd)),
    "os.removedirs": lambda d: os.removedirs(d / "empty"),
    "os.rename": lambda d: os.rename(d / "f", d / "new"),
    "os.replace": lambda d: os.replace(d / "f", d / "g"),
    "os.rename a folder": lambda d: os.rename(d / "sub", d / "new"),
    "os.rename dir_fd": by_folder(lambda fd: os.rename("f", "new", src_dir_fd=fd, dst_dir_fd=fd)),
    "os.renames": lambda d: os.renames(d / "f", d / "a" / "b"),
    "os.mkdir": lambda d: os.mkdir(d / "new"),
    "os.mkdir dir_fd": by_folder(lambda fd: os.mkdir("new", dir_fd=fd)),
    "os.makedirs": lambda d: os.makedirs(d / "a" / "b"),
    "Path.mkdir": lambda d: (d / "a" / "b").mkdir(parents=True),
    "os.link": lambda d: os.link(d / "f", d / "new"),
    "os.link dir_fd": by_folder(lambda fd: os.link("f", "new", src_dir_fd=fd, dst_dir_fd=fd)),
    "os.symlink": lambda d: os.symlink("f", d / "new"),
    "os.symlink dir_fd": by_folder(lambda fd: os.symlink("f", "new", dir_fd=fd)),
    "os.truncate": lambda d: os.truncate(d / "f", 1),
    "os.chmod": lambda d: os.chmod(d / "f", 0o600),
    "os.chmod a folder": lambda d: os.chmod(d, 0o711),
    "os.chmod dir_fd": by_folder(lambda fd: os.chmod("f", 0o600, dir_fd=fd)),
    "os.chmod fd": by_folder(lambda fd: os.chmod(fd, 0o711)),
    "os.fchmod": by_folder(lambda fd: os.fchmod(fd, 0o711)),
    "os.chown": lambda d: os.chown(d / "f", os.getuid(), os.getgid()),
    "os.lchown": lambda d: os.lchown(d / "f", os.getuid(), os.getgid()),
    "os.fchown": by_folder(lambda fd: os.fchown(fd, os.getuid(), os.getgid())),
    "os.utime": lambda d: os.utime(d / "f", (1, 1)),
    "os.utime fd": by_folder(lambda fd: os.utime(fd, (1, 1))),
    "os.utime dir_fd": by_folder(lambda fd: os.utime("f", (1, 1), dir_fd=fd)),
    "os.setxattr": lambda d: os.setxattr(d / "f", "user.a", b"b"),
    "shutil.copy": lambda d: shutil.copy(d / "f", d / "new"),
    "shutil.copy over": lambda d: shutil.copy(d / "f", d / "g"),
    "shutil.copystat": lambda d: (os.utime(d / "f", (1, 1)), shutil.copystat(d / "f", d / "g")),
    "shutil.copytree": lambda d: shutil.copytree(d / "sub", d / "new"),
    "shutil.move": lambda d: shutil.move(d / "f", d / "new"),
    "shutil.rmtree": lambda d: shutil.rmtree(d / "sub"),
    "shutil.rmtree dir_fd": by_folder(lambda fd: shutil.rmtree("sub", dir_fd=fd)),
    "shutil.make_archive": lambda d: shutil.make_archive(f"{d}/new", "zip", d / "sub"),
    "shutil.unpack_archive": lambda d: shutil.unpack_archive(d / "z.zip", d / "new"),
    "tarfile": archive,
    "Path.write_text": lambda d: (d / "new").write_text("x"),
    "Path.touch": lambda d: (d / "f").touch(),
    "tempfile.mkstemp": lambda d: os.close(tempfile.mkstemp(dir=d)[0]),
    "tempfile.mkdtemp": lambda d: tempfile.mkdtemp(dir=d),
    "sqlite3": lambda d: change_database(d / "db"),
    "sqlite3 str": lambda d: change_database(f"{d}/db"),
    "sqlite3 PathLike": lambda d: change_database(Spelled(d / "db")),
    "sqlite3 uri": lambda d: change_database(f"file:{d}/db?mode=rwc#x", uri=True),
    "sqlite3 new": lambda d: sqlite3.connect(d / "new").execute("create table t(x)").connection.close(),
    "dbm.dumb": lambda d: dbm.dumb.open(f"{d}/new", "c").close(),
    "bind": by_folder(lambda fd: bind(f"/proc/self/fd/{fd}/new")),
    "thread": lambda d: in_thread(lambda: write(d / "f")),
}


def bind(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)


def spell(answer):
    return answer.decode() if isinstance(answer, bytes) else str(answer)


@pytest.mark.parametrize("name", READS)
def test_reads(world, name):
    attack, cwd = READS[name], os.getcwd()
    for place in PLACES:
        folder, allowed = world[place], place in {"work", "plain", "extra"}
        assert SECRET in spell(attack(folder)), "it works without the guard"
        os.chdir(cwd)
        with world.guard("log"):
            assert SECRET in spell(attack(folder)), "log lets it go on"
        os.chdir(cwd)
        denied, done = world.take()
        assert bool(denied) is not allowed, place
        assert not done, "allowed reading is quiet"
        with world.guard("block"):
            try:
                answer = spell(attack(folder))
            except AccessDenied:
                answer = ""
        os.chdir(cwd)
        assert (SECRET in answer) is allowed, place
        assert bool(world.take()[0]) is not allowed, place


@pytest.mark.parametrize("name", CHANGES)
def test_changes(world, name):
    attack = CHANGES[name]

    def effect(folder, manager, *, allowed=True):
        if folder.exists():
            shutil.rmtree(folder)
        fill(folder)
        before = fingerprint(folder)
        with manager:
            try:
                attack(folder)
            except (AccessDenied, shutil.Error, shutil.ReadError):
                if allowed:
                    raise
        return fingerprint(folder) != before

    for place in PLACES:
        folder, allowed = world[place], place in {"work", "extra"}
        try:
            assert effect(folder, contextlib.nullcontext()), "it works without the guard"
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise
            pytest.skip("this file system cannot do it")
        assert effect(folder, world.guard("log")), "log lets it go on"
        denied, done = world.take()
        assert bool(denied) is not allowed, place
        # What goes around the trash is told, where the policy has a say.
        assert bool(done) is (place == "work")
        assert effect(folder, world.guard("block"), allowed=allowed) is allowed, place
        denied, done = world.take()
        assert bool(denied) is not allowed, place
        assert bool(done) is (place == "work")
    assert world.jail.audit.verify()


# ── what a policy knows and a name does not tell ───────────────────────────────────────────────


def refused(call, kind=AccessDenied):
    with pytest.raises(kind) as caught:
        call()
    return caught.value


def test_errors_are_those_of_the_jail(world):
    (world["work"] / "out").symlink_to(world["outside"] / "f")
    with folder_fd("plain") as fd, world.guard():
        error = refused(lambda: open("private/f"), PolicyDenied)
        assert (error.errno, error.filename) == (errno.EACCES, "private/f")
        assert error.decision.rule.pattern == "private/"
        assert error.decision.why == "read.deny[0]"
        out = refused(lambda: open("work/out"), OutOfBounds)
        assert (out.errno, out.filename, out.decision.op) == (errno.EXDEV, "work/out", "read")
        assert refused(lambda: open("plain/f", "w"), PolicyDenied).decision.op == "write"
        assert refused(lambda: os.listdir(b"private"), PolicyDenied).filename == "private"
        assert refused(lambda: os.mkdir("new", dir_fd=fd)).filename == "new"
        assert refused(lambda: os.fchmod(fd, 0o700)).filename == f"fd {fd}"
    for each in (error, out):
        assert str(world.base) not in str(each), "no path of the host but what the caller said"
        assert str(pickle.loads(pickle.dumps(each))) == str(each)
    denied, _ = world.take()
    assert [(event.op, event.path, event.extra["event"]) for event in denied[:2]] == [
        ("read", "private/f", "open"),
        ("read", "work/out", "open"),
    ]
    assert denied[0].rule["pattern"] == "private/"
    assert [event.resolved for event in denied[:2]] == ["private/f", str(world["outside"] / "f")]
    assert denied[-2].resolved == "plain/new"


ALIASES = {
    "a second name for a secret": lambda w: os.link("private/f", "work/new"),
    "a second name for what may only be read": lambda w: os.link("plain/f", "work/new"),
    "a second name for what a link leads to": lambda w: os.link("work/out/f", "work/new"),
    "a secret moved away": lambda w: os.rename("private", "work/new"),
    "a folder with a secret beneath": lambda w: os.rename("work/nest", "work/new"),
    "that folder removed": lambda w: shutil.rmtree("work/nest"),
    "a link planted that leads out": lambda w: os.symlink(w["outside"], "work/new"),
    "a link planted to a secret": lambda w: os.symlink("../private/f", "work/new"),
    "a link planted by dir_fd": lambda w: os.symlink("../private/f", "new", dir_fd=w.fd),
    "a link that was there": lambda w: open("work/to-private/new", "w").close(),
    "a link out that was there": lambda w: open("work/out/new", "w").close(),
    "a link out to what is not there yet": lambda w: open("work/dangling", "w").close(),
    "moved in over a secret": lambda w: os.rename("work/f", ".env"),
    "moved out": lambda w: os.rename("work/f", w["outside"] / "new"),
    "moved in, and read there": lambda w: os.rename(w["outside"] / "f", "work/new"),
    "from what may be changed to what may not": lambda w: os.rename(w["extra"] / "f", "plain/new"),
    "another case": lambda w: open("PRIVATE", "w").close(),
    "the root itself": lambda w: os.rename(w["root"], w["root"].with_name("new")),
    "fsjail's own folder": lambda w: os.mkdir(".fsjail/new"),
    "the rules": lambda w: open("fsjail.toml", "w").close(),
    "a hook of git": lambda w: os.makedirs("work/.git/hooks"),
    "a file without a name": lambda w: os.link(
        f"/proc/self/fd/{os.open('work', os.O_TMPFILE | os.O_RDWR)}", "plain/new", src_dir_fd=w.fd
    ),
    "a socket that is a file": lambda w: bind(f"/proc/self/fd/{w.fd}/../plain/new"),
    "through the working directory": lambda w: (os.chdir("work"), open("../plain/new", "w").close()),
    "down and up again": lambda w: open("work/sub/../../plain/new", "w").close(),
}


@pytest.mark.parametrize("name", ALIASES)
def test_ways_to_alias_what_is_denied(world, name):
    (world["work"] / "nest").mkdir()
    (world["work"] / "nest" / ".env").write_text(SECRET)
    (world["work"] / "to-private").symlink_to("../private")
    (world["work"] / "out").symlink_to(world["outside"])
    (world["work"] / "dangling").symlink_to(world["outside"] / "new")
    world.jail.write_text("work/x", "x")
    world.jail.delete("work/x")  # so that there is a .fsjail
    with folder_fd("work") as world.fd:
        before = fingerprint(world.base)
        with world.guard():
            refused(lambda: ALIASES[name](world))
        assert fingerprint(world.base) == before
        assert world.take()[0]
        os.chdir(world["root"])
        ALIASES[name](world)
        assert fingerprint(world.base) != before, "it works without the guard"


def test_a_root_that_was_replaced_is_not_the_root(world):
    world["root"].rename(world.base / "moved")
    world["root"].symlink_to(world["outside"])
    assert (world["root"] / "f").read_text() == SECRET
    with world.guard():
        refused(lambda: open(world["root"] / "f"))


def test_nothing_left_to_look_with_is_a_refusal(world):
    """With one descriptor left the kernel could open what the guard could not look at."""
    resource = pytest.importorskip("resource")
    (world["work"] / "out").symlink_to(world["outside"] / "f")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        with pytest.raises(OSError, match="Too many"):
            while True:
                held.append(os.dup(0))
        os.close(held.pop())
        open("work/out").close()  # the last one is enough for the kernel
        with world.guard():
            for _ in range(6):
                refused(lambda: open("work/out"))
                os.close(held.pop())
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_path_longer_than_a_path_can_be(world):
    """Following links in the library stops where a path gets too long; the kernel goes on (CVE-2025-4517)."""
    deep, depth = "d" * 240, 18
    fds = [os.open(world["extra"], os.O_RDONLY)]
    try:
        for _ in range(depth):
            os.mkdir(deep, dir_fd=fds[-1])
            fds.append(os.open(deep, os.O_RDONLY, dir_fd=fds[-1]))
        half = "/".join([deep] * (depth // 2))
        os.symlink(half, "s", dir_fd=fds[0])
        os.symlink(half, "s", dir_fd=fds[depth // 2])
        os.symlink(world["outside"], "out", dir_fd=fds[-1])
        os.symlink(world["outside"] / "f", "file", dir_fd=fds[-1])
        for name in ("s/s/out/f", "s/s/file", "s/s/out/../outside/f"):
            path = world["extra"] / name
            assert path.read_text() == SECRET
            with world.guard():
                refused(lambda: open(path))  # noqa: B023
    finally:
        for fd in fds:
            os.close(fd)
        shutil.rmtree(world["extra"] / deep)


def test_a_log_outside_stays_closed(world, tmp_path):
    """Whatever allow_outside says: who may write the log and the trash may make up what happened."""
    state, trash = tmp_path / "state2", tmp_path / "trash2"
    with Jail("work", Policy.workspace(), state=state, trash_location=trash) as jail:
        jail.write_text("y", "1")
        jail.write_text("y", "2")
        saved = next(path for path in trash.rglob("*") if path.is_file() and path.read_bytes() == b"1")
        with jail.guard("block", allow_outside=[tmp_path]):
            (tmp_path / "free").write_text("x")
            for path in (state / "audit.jsonl", saved):
                refused(lambda: open(path))  # noqa: B023
                refused(lambda: os.truncate(path, 0))  # noqa: B023
            refused(lambda: shutil.rmtree(state))
        assert jail.audit.verify()


# ── what stays quiet ───────────────────────────────────────────────────────────────────────────


def operations(jail):
    """Everything that a jail can do."""
    yield from (
        lambda: jail.write_text("work/a/b.txt", "1", parents=True),
        lambda: jail.write_bytes("work/a/b.txt", b"2"),
        lambda: jail.append_text("work/a/b.txt", "3\n"),
        lambda: jail.edit("work/a/b.txt", "3", "4"),
        lambda: jail.mkdir("work/m"),
        lambda: jail.copy("work/sub", "work/sub2"),
        lambda: jail.move("work/sub2", "work/sub3"),
        lambda: jail.delete("work/sub3"),
        jail.undo,
        jail.trash.items,
        lambda: jail.trash.purge(keep_bytes=0),
        jail.trash.recover,
        lambda: jail.read_text("work/f"),
        lambda: jail.read_lines("work/f"),
        lambda: closing(jail.open("work/f")),
        lambda: jail.open("work/o", "w", encoding="cp437").close(),
        lambda: jail.listdir("."),
        lambda: list(jail.walk()),
        lambda: list(jail.glob("**/*.py")),
        lambda: list(jail.grep(SECRET)),
        lambda: jail.stat("work"),
        lambda: jail.check("move", "work", "work2"),
        lambda: list(jail.audit.events()),
        jail.audit.verify,
        {tool.__name__: tool for tool in file_tools(jail)}["list_directory"],
    )


@pytest.mark.parametrize("mode", ["log", "block"])
def test_the_jail_itself_is_left_alone(tmp_path, world, mode):
    """Its opening of files, its log with rotation, its trash elsewhere: nothing is refused or told twice."""
    trash = tmp_path / "trash"
    options = {"state": tmp_path / "s", "log_bytes": 4096, "record": "all", "trash_location": trash}
    with Jail(world["root"], world.jail.policy, **options) as jail, jail.guard(mode), world.guard():
        for operation in operations(jail):
            operation()
        in_thread(lambda: jail.write_text("work/t", "x"))
        for name in ("private/f", "../outside/f", "plain/new"):
            with pytest.raises(AccessDenied):
                jail.write_text(name, "x")
        assert jail.audit.verify()
        assert not [event for event in jail.audit.events() if event.layer == "guard"]
    assert world.take() == ([], [])


def test_another_jail_is_a_door_of_its_own(world):
    """``Jail(root, Policy.workspace())`` would read and write everything, in the name of fsjail."""
    options = {"state": world["extra"], "policy": Policy(write=Rules(allow=["*"]), presets=())}
    with Jail(world["root"], **options) as other:
        assert other.read_text("private/f") == SECRET
    (world["root"] / "fsjail.toml").write_text("[write]\nallow = ['*']\n")
    with world.guard():
        for make in (
            lambda: Jail(world["root"], **options),
            lambda: Jail("/"),
            lambda: Jail.load(world["root"]),
        ):
            assert refused(make, PolicyDenied).decision.why == "guard: another jail"
    with world.guard("log"), Jail(world["root"], **options):
        pass
    assert {event.why for event in world.take()[0]} == {"guard: another jail"}


@pytest.fixture
def modules(world, tmp_path, monkeypatch):
    """Modules of this test's own, in folders that are on sys.path, and not."""
    library = tmp_path / "library"
    (library / "gt_pack").mkdir(parents=True)
    (library / "gt_pack" / "__init__.py").write_text("from gt_pack import inner\nimport gt_single\n")
    (library / "gt_pack" / "inner.py").write_text("X = 1\n")
    (library / "gt_single.py").write_text("X = 2\n")
    (world["work"] / "gt_inside.py").write_text("X = 3\n")
    (world["plain"] / "gt_plain.py").write_text("X = 4\n")
    (world["private"] / "gt_private.py").write_text("X = 5\n")
    (world["outside"] / "gt_outside.py").write_text("X = 6\n")
    with zipfile.ZipFile(library / "gt.zip", "w") as archive:
        archive.writestr("gt_zipped.py", "X = 7\n")
    for folder in (library, library / "gt.zip", world["work"], world["plain"]):
        monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    yield library
    for name in [name for name in sys.modules if name.startswith("gt_")]:
        del sys.modules[name]


@pytest.mark.parametrize("mode", ["log", "block"])
def test_imports_are_quiet(world, modules, mode):
    with world.guard(mode):
        for name in ("gt_pack", "gt_inside", "gt_plain", "gt_zipped", "xml.sax.saxutils", "encodings.cp1140"):
            importlib.import_module(name)
        importlib.reload(sys.modules["gt_plain"])
        "x".encode("cp1026")
        zoneinfo.ZoneInfo.no_cache("UTC")
        assert Path(os.__file__).read_text()
        assert glob.glob(f"{sysconfig.get_path('stdlib')}/json/*")
        open(os.devnull, "w").close()
        assert by_os_open("/dev/zero") == "\0" * 100
        try:
            sys.modules["gt_plain"].nothing()
        except AttributeError:
            linecache.clearcache()
            assert "no attribute" in traceback.format_exc()
        assert linecache.getlines(str(modules / "gt_single.py")) == ["X = 2\n"]
    assert world.take() == ([], [])
    assert list((modules / "gt_pack" / "__pycache__").iterdir()), "the import system caches as ever"
    assert list((world["plain"] / "__pycache__").iterdir()), "even where the policy lets nobody write"


def test_what_is_no_import(world, modules, monkeypatch):
    """The import system's tools, used to read, list and write what is not theirs."""
    library, secret = world["outside"], world["outside"] / "gt_outside.py"
    source = importlib.machinery.SourceFileLoader
    monkeypatch.syspath_prepend(world["private"])
    planted = importlib.util.cache_from_source(str(modules / "gt_single.py"))

    class Planting(source):
        """Caches code of the agent's own under a library's name."""

        def get_data(self, path):
            return b"X = 'evil'\n"

        def path_stats(self, path):
            st_ = os.stat(path)
            return {"mtime": st_.st_mtime, "size": st_.st_size}

    tampered = source("gt_single", str(modules / "gt_single.py"))
    tampered.get_data = lambda _path: b"X = 'evil'\n"
    with world.guard():
        importlib.import_module("gt_plain")
        for attempt in (
            lambda: source("gt_plain", str(secret)).get_data(str(secret)),
            lambda: source("x", str(secret)).get_code("x"),
            lambda: load(str(secret)),
            lambda: importlib._bootstrap_external._write_atomic(str(library / "__pycache__" / "x.pyc"), b""),
            lambda: linecache.getlines(str(secret)) or open(secret),
            lambda: sys.modules["gt_plain"].__loader__.get_data("private/f"),
        ):
            refused(attempt)
        source("x", str(secret)).set_data(str(library / "__pycache__" / "new.pyc"), b"")  # swallows errors
        assert not (library / "__pycache__").exists()
        with pytest.raises(ImportError):  # denied in the root is denied to imports, too
            importlib.import_module("gt_private")
        sys.path.append(str(library))
        with pytest.raises(ImportError):
            importlib.import_module("gt_outside")
        for loader in (Planting("gt_single", tampered.path), tampered):
            with contextlib.suppress(AccessDenied):
                loader.get_code("gt_single")
            assert not os.path.exists(planted)
    tampered.get_code("gt_single")
    assert os.path.exists(planted), "it works without the guard"


def an_extension():
    folder = Path(sysconfig.get_config_var("DESTSHARED") or "nowhere")
    for name in ("xxlimited_35", "xxlimited", "_xxtestfuzz", "_testbuffer"):
        for found in folder.glob(f"{name}.*so"):
            return name, found
    pytest.skip("this Python brings no extension module that nobody needs")
    return None


def test_native_code_of_an_agent(world, monkeypatch):
    name, found = an_extension()
    for place in ("work", "plain", "outside"):
        shutil.copy(found, world[place])
    spec = {
        place: importlib.util.spec_from_file_location(name, world[place] / found.name)
        for place in ("work", "plain", "outside")
    }
    with world.guard():
        importlib.util.module_from_spec(spec["plain"])  # nobody here can have written it
        for place in ("work", "outside"):
            error = refused(lambda: importlib.util.module_from_spec(spec[place]), PolicyDenied)  # noqa: B023
            assert error.decision.why == "guard: native code"
        for attempt in (
            lambda: ctypes.CDLL(None),
            lambda: ctypes.CDLL(str(world["plain"] / found.name)),
            lambda: ctypes.cdll.LoadLibrary("libc.so.6"),
            lambda: ctypes.pythonapi.PyRun_SimpleString,
            lambda: ctypes.pythonapi["open"],
        ):
            assert refused(attempt, PolicyDenied).decision.op == "load"
    importlib.util.module_from_spec(spec["work"])
    assert ctypes.CDLL(None).getpid() == os.getpid()


def test_a_library_may_use_ctypes(world):
    """Its file in the interpreter's folders vouches for it; a file name that code only claims does not."""
    script = f"""
import ctypes, sys
from fsjail import Jail
jail = Jail({str(world["root"])!r}, state={str(world["extra"])!r})
with jail.guard("block"):
    import ctypes.wintypes, ctypes.util, multiprocessing.sharedctypes, uuid
    uuid.uuid1()
    try:
        exec(compile("ctypes.CDLL(None)", ctypes.util.__file__, "exec"), {{"ctypes": ctypes}})
    except PermissionError as error:
        print("refused", error)
"""
    done = python(script)
    assert done.stdout.startswith("refused load"), done.stdout + done.stderr


def python(script, **more):
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        **more,
    )


# ── processes, threads, tasks ──────────────────────────────────────────────────────────────────


def nothing():
    pass


def spawned():
    process = multiprocessing.get_context("spawn").Process(target=nothing)
    process.start()
    process.join(60)
    process.close()


async def asyncio_process():
    return await (await asyncio.create_subprocess_exec("true")).wait()


PROCESSES = {
    "run": lambda: subprocess.run(["true", "--token", "hunter2"], check=True),
    "shell": lambda: subprocess.run("true", shell=True, check=True),
    "no close_fds": lambda: subprocess.run([shutil.which("true")], close_fds=False, check=True),
    "system": lambda: os.system("true"),
    "popen": lambda: os.popen("true").close(),
    "posix_spawn": lambda: os.waitpid(os.posix_spawn(shutil.which("true"), ["true"], {}), 0),
    "posix_spawnp": lambda: os.waitpid(os.posix_spawnp("true", ["true"], {}), 0),
    "asyncio": lambda: asyncio.run(asyncio_process()),
    "multiprocessing": spawned,
}


@pytest.mark.parametrize("name", PROCESSES)
def test_processes(world, name):
    PROCESSES[name]()
    with world.guard("log"):
        PROCESSES[name]()
    logged, _ = world.take()
    assert {event.op for event in logged} == {"run"}
    assert {event.why for event in logged} == {"guard: process"}
    with world.guard():
        assert refused(PROCESSES[name], PolicyDenied).decision.why == "guard: process"
    (event, *_), _ = world.take()
    assert event.extra["argv"]
    assert "hunter2" not in str(event)


def forked(call):
    """How a call ends in a forked child: 0 if it did, 7 if the jail refused."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            call()
            code = 0
        except AccessDenied:
            code = 7
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_is_guarded(world):
    attempts = [lambda: open("private/f"), lambda: os.execv(shutil.which("true"), ["true"])]
    assert [forked(call) for call in attempts] == [0, 0]
    with world.guard():
        assert [forked(call) for call in attempts] == [7, 7]
        assert os.spawnv(os.P_WAIT, shutil.which("true"), ["true"]) == 127
    assert [event.why for event in world.take()[0]] == ["read.deny[0]", "guard: process", "guard: process"]
    assert world.jail.audit.verify()


def test_other_interpreters_are_kept_out(world):
    script = f"""
import sys
from fsjail import Jail
jail = Jail({str(world["root"])!r}, state={str(world["extra"])!r})
with jail.guard("block"):
    for name in ("_xxsubinterpreters", "_interpreters"):
        try:
            __import__(name)
        except PermissionError as error:
            print("refused", name)
        except ImportError:
            print("refused", name)
"""
    assert python(script).stdout.split() == ["refused", "_xxsubinterpreters", "refused", "_interpreters"]


def pooled(call):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result(30)


def timed(call):
    done = concurrent.futures.Future()
    threading.Timer(0, settle, (done, call)).start()
    return done.result(30)


def settle(future, call):
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001 - it is raised again where it is awaited
        future.set_exception(error)


def low(call):
    done = concurrent.futures.Future()
    _thread.start_new_thread(settle, (done, call))
    return done.result(30)


@pytest.mark.parametrize("start", [in_thread, pooled, timed, low, lambda call: asyncio.run(to_thread(call))])
def test_threads_inherit_the_guard(world, start):
    def attack():
        return closing(open("private/f"))

    assert start(attack) == SECRET
    with world.guard():
        refused(lambda: start(attack))
    assert start(attack) == SECRET


def test_a_thread_that_was_there_is_free_and_ends_nothing(world):
    """As the docstring says; and the guard of one thread says nothing to another."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(nothing).result(30)
        with world.guard():
            assert pool.submit(lambda: closing(open("private/f"))).result(30) == SECRET
            refused(lambda: open("private/f"))


def test_a_thread_is_free_when_the_block_has_ended(world):
    began, ended = threading.Event(), threading.Event()
    answers = []

    def work():
        for event in (began, ended):
            event.wait(30)
            try:
                answers.append(closing(open("private/f")))
            except AccessDenied:
                answers.append("refused")
                began.clear()

    with world.guard():
        thread = threading.Thread(target=work)
        thread.start()
        began.set()
        while not answers:
            thread.join(0.01)
    ended.set()
    thread.join(30)
    assert answers == ["refused", SECRET]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="this version raises no event when a thread starts")
def test_a_start_of_threads_from_before(world):
    with world.guard():
        assert refused(lambda: real_start(nothing, ())).decision.why == "guard: thread"


def test_two_tasks_of_one_loop(world):
    async def guarded(turn, other):
        with world.guard():
            for _ in range(20):
                refused(lambda: open("private/f"))
                other.set()
                await turn.wait()
                turn.clear()
            await asyncio.create_task(inherits())
            refused(lambda: open("private/f"))
        other.set()

    async def inherits():
        refused(lambda: open("private/f"))

    async def free(turn, other):
        for _ in range(20):
            await turn.wait()
            turn.clear()
            assert by_os_open("private/f") == SECRET
            assert await asyncio.to_thread(by_os_open, "private/f") == SECRET
            other.set()

    async def both():
        one, two = asyncio.Event(), asyncio.Event()
        await asyncio.gather(guarded(one, two), free(two, one))

    asyncio.run(both())


# ── the guard as an object ─────────────────────────────────────────────────────────────────────


def test_bad_input(world):
    jail = world.jail
    for bad in ("LOG", "", None, "deny"):
        with pytest.raises(ValueError, match="mode is 'log' or 'block'"):
            jail.guard(bad)
    for bad in ("/tmp", b"/tmp", Path("/tmp")):
        with pytest.raises(TypeError, match="a list of paths"):
            jail.guard(allow_outside=bad)
    with pytest.raises(TypeError):
        jail.guard(allow_outside=[b"/tmp"])
    with pytest.raises(TypeError):
        jail.guard(allow_outside=[1])
    with pytest.raises(ValueError, match="empty"):
        jail.guard(allow_outside=[""])
    guard = jail.guard()
    with pytest.raises(RuntimeError, match="not at work"):
        guard.__exit__(None, None, None)
    with guard:
        pass
    with pytest.raises(RuntimeError, match="not at work"):
        guard.__exit__(None, None, None)
    jail.close()
    with pytest.raises(ValueError, match="closed"):
        guard.__enter__()


def test_home_is_known(world, home):
    (home / "notes").mkdir()
    with world.jail.guard("block", allow_outside=["~/notes"]):
        (home / "notes" / "x").write_text("x")
        refused(lambda: open(home / "y", "w"))


def test_a_jail_that_is_closed_meanwhile(world):
    guard = world.guard()
    with guard:
        world.jail.close()
        refused(lambda: open("work/f"))
        refused(lambda: open(world["outside"] / "f"))
    with Jail(world["root"], state=world["extra"]) as jail, jail.guard("log"):
        jail.close()
        assert closing(open("work/f")) == closing(open("private/f")) == SECRET


def test_nested_guards_all_see(world, tmp_path):
    with Jail(world["outside"], Policy.workspace(), state=tmp_path / "s2") as other:
        with world.guard("log"), other.guard("log"):
            assert closing(open("work/f")) == closing(open(world["outside"] / "f")) == SECRET
        assert [event.resolved for event in world.take()[0]] == [str(world["outside"] / "f")]
        assert [event.path for event in other.audit.events()] == ["work/f"]
        for outer, inner in itertools.permutations([world.guard(), other.guard("block")]):
            with outer, inner:
                refused(lambda: open("work/f"))
                refused(lambda: open(world["outside"] / "f"))
                world.jail.write_text("work/n", "x")
                other.write_text("n", "x")
        with world.guard("log"), other.guard("block"):
            refused(lambda: open("work/new", "w"))
        assert not world.take()[1], "what one guard refused the other does not call done"


def test_guards_left_in_any_order_and_from_anywhere(world):
    first, second = world.guard(), world.guard()
    first.__enter__()
    contextvars.copy_context().run(second.__enter__)
    first.__exit__(None, None, None)
    refused(lambda: open("private/f"))
    contextvars.Context().run(second.__exit__, None, None, None)
    assert closing(open("private/f")) == SECRET
    with first, first:
        refused(lambda: open("private/f"))
    with contextlib.ExitStack() as stack:
        stack.enter_context(first)
        refused(lambda: contextvars.Context().run(open, "private/f"))
    with first:
        contextvars.copy_context().run(_scope.ACTIVE.set, ())
        token = _scope.ACTIVE.set(())
        refused(lambda: open("private/f"))
        _scope.ACTIVE.reset(token)
    assert closing(open("private/f")) == SECRET


def test_nothing_is_left_behind(world):
    names = [(os, "open"), (posix, "open"), (_thread, "start_new_thread"), (threading, "_start_new_thread"),
             (sqlite3, "connect"), (subprocess, "_fork_exec")]  # fmt: skip
    names = [(module, name) for module, name in names if hasattr(module, name)]
    before = [getattr(module, name) for module, name in names]
    with world.guard(), world.guard("log"):
        assert os.open in os.supports_dir_fd
        assert os.open.__name__ == "open"
        assert os.open is not real_open
    assert [getattr(module, name) for module, name in names] == before
    assert os.open is real_open
    assert os.open in os.supports_dir_fd
    with world.guard():
        mine, os.open = functools.partial(os.open), functools.partial(os.open)  # somebody else's patch
    try:
        assert type(os.open) is functools.partial
        assert by_os_open("work/f") == SECRET, "a wrapper that was kept goes on to work"
    finally:
        os.open = real_open
        del mine


def test_shutil_imported_meanwhile_still_works_on_descriptors(world):
    script = f"""
import sys
from fsjail import Jail
jail = Jail({str(world["root"])!r}, state={str(world["extra"])!r})
assert "shutil" not in sys.modules
with jail.guard("block"):
    import shutil
print(shutil.rmtree.avoids_symlink_attacks)
"""
    assert python(script).stdout == "True\n"


def test_a_hook_that_was_there_before(world):
    """It can keep other hooks out without a word; the guard must not pretend to be at work."""
    script = f"""
import sys
from fsjail import Jail
def jealous(event, args):
    if event == "sys.addaudithook":
        raise RuntimeError("only me")
sys.addaudithook(jealous)
guard = Jail({str(world["root"])!r}, state={str(world["extra"])!r}).guard("block")
try:
    guard.__enter__()
except RuntimeError as error:
    print(error)
    import fsjail._scope, os
    print(fsjail._scope.ENTRIES, os.open)
"""
    assert python(script).stdout == (
        "another audit hook of this process keeps the guard's out\n[] <built-in function open>\n"
    )


def test_what_goes_wrong_in_the_guard(world, monkeypatch):
    """A guard that blocks lets nothing pass unjudged; one that logs never stops the program."""

    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(_rawcalls.Onlooker, "answer", broken)
    with world.guard("log"):
        assert closing(open("work/f")) == SECRET
    with world.guard():
        assert refused(lambda: open("work/f"), PolicyDenied).decision.why == "guard: failed"
    assert [event.why for event in world.take()[0]] == ["guard: failed"] * 2


def test_a_log_that_cannot_be_written(world, tmp_path):
    (tmp_path / "s2").write_text("no folder")
    with Jail("work", Policy.workspace(), state=tmp_path / "s2", required=True) as jail:
        with jail.guard("log"):
            write("work/f")
        with jail.guard("block"):
            with pytest.raises(OSError, match="audit log") as caught:
                write("work/g")
            assert caught.value.errno == errno.EIO
            refused(lambda: open("private/f"))
    assert (world["work"] / "g").read_text() == "other"


@pytest.mark.parametrize("mode", ["log", "block"])
def test_a_call_while_the_log_is_being_written(world, monkeypatch, mode):
    """A finalizer or signal handler can open files in the middle of anything; nothing may wait for itself."""
    append, errors = world.jail.audit._chain.append, []

    def interrupted(text):
        try:
            open(world["outside"] / "f").close()
        except AccessDenied as error:
            errors.append(error)
        return append(text)

    monkeypatch.setattr(world.jail.audit._chain, "append", interrupted)
    done = threading.Event()

    def work():
        with world.guard(mode):
            with contextlib.suppress(AccessDenied):
                open("private/f").close()
            world.jail.write_text("work/n", "x")
        done.set()

    threading.Thread(target=work, daemon=True).start()
    assert done.wait(30)
    monkeypatch.undo()
    assert bool(errors) is (mode == "block")
    world.jail.write_text("work/n", "y")
    assert any("lost" in str(event.extra) for event in world.jail.audit.events() if event.layer == "audit")
    assert world.jail.audit.verify()


def test_undo_leaves_alone_what_was_never_saved(world):
    change = world.jail.write_text("work/new", "by the jail")
    with world.guard("log"):
        write("work/raw")
    (undone,) = world.jail.undo()
    assert (undone.op, undone.path) == ("delete", change.path)
    assert (world["work"] / "raw").read_text() == "changed"


# ── ways around it that an agent would try ─────────────────────────────────────────────────────


class Hands:
    """A path whose methods are C functions: they run in fsjail's own frames."""

    __fspath__ = staticmethod(functools.partial(os.remove, "plain/f"))


class Reader:
    __fspath__ = staticmethod(functools.partial(Path.read_text, Path("private/f")))


class Sneaky(str):
    __slots__ = ()
    split = staticmethod(functools.partial(os.rename, "plain/f"))


class Float:
    """A number to io.open, so that it is asked for its path only later; an int to isinstance."""

    __class__ = int

    def __float__(self):
        return 1.0

    def __fspath__(self):
        return "private/f"


class Finalizer:
    __del__ = staticmethod(functools.partial(os.remove, "plain/f"))


def spoof(module, target):
    space = dict(vars(module))
    exec(compile(f"def evil(): return open({target!r}).read()", module.__file__, "exec"), space)
    return space["evil"]


def placed(world):
    """Code whose file name begins in a folder of the interpreter, and whose file holds it, elsewhere."""
    file = world["work"] / "evil.py"
    file.write_text("import ctypes\ndef evil(): return ctypes.CDLL(None)\n")
    stdlib, space = sysconfig.get_path("stdlib"), {}
    name = os.path.join(stdlib, os.path.relpath(file, os.path.realpath(stdlib)))
    exec(compile(file.read_text(), name, "exec", dont_inherit=True), space)
    return space["evil"]()


SPOOFS = {
    "a file name that leads elsewhere": placed,
    "our code, its own globals": lambda w: types.FunctionType(
        fsjail._root.reopen.__code__,
        {
            "PATH": os.O_RDONLY,
            "os": types.SimpleNamespace(open=real_open, close=os.close, fstat=os.fstat),
            "stat_": types.SimpleNamespace(S_ISDIR=bool),
        },
    )(w.fd, ["f"]),
    "a file name of ours": lambda w: spoof(fsjail._root, "private/f")(),
    "our globals": lambda w: exec("print(open('private/f').read())", vars(fsjail._root)),
    "a file name of ours that opens": lambda w: spoof(fsjail._audit, "private/f")(),
    "the name of a module of ours": lambda w: exec(
        "open('private/f').read()", {"__name__": "fsjail._root", "__file__": fsjail._root.__file__}
    ),
    "importlib's file name": lambda w: exec(
        compile("def _find_and_load(): return open('private/f').read()\n_find_and_load()",
                "<frozen importlib._bootstrap>", "exec"), {}
    ),
    "a folder of the interpreter": lambda w: exec(
        compile("open('private/f')", f"{sysconfig.get_path('stdlib')}/../../../x.py", "exec"), {}
    ),
    "a path that acts": lambda w: w.jail.read_text(Hands()),
    "a path that reads": lambda w: w.jail.read_text(Reader()),
    "a text that acts": lambda w: w.jail.read_text(Sneaky("work/f")),
    "a number that is a path": lambda w: open(Float()),
    "a memoryview": lambda w: os.open(memoryview(b"private/f"), os.O_RDONLY),
    "a start at the first os.open": lambda w: real_open("f", os.O_RDONLY, dir_fd=w.fd),
    "the wrapper's code": lambda w: types.FunctionType(
        _scope.open_at.__code__, {"_os_open": lambda *_, **k: real_open("f", 0, dir_fd=w.fd), "index": int}
    )("work/f", 0, 0, dir_fd=None),
    "a C thread": lambda w: low(functools.partial(open, "private/f")),
    "a callback of a pool": lambda w: pooled(functools.partial(open, "private/f")),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", SPOOFS)
def test_spoofs(world, name, capsys):
    with folder_fd("private") as world.fd, world.guard():
        try:
            answer = SPOOFS[name](world)
        except BaseException as error:  # noqa: BLE001 - whatever it ends with, it must hold no secret
            answer = error
        assert (
            SECRET not in f"{answer} {answer!r} {vars(answer) if isinstance(answer, BaseException) else ''}"
        )
        assert answer is None or isinstance(answer, BaseException), answer
    assert (world["plain"] / "f").exists()
    assert SECRET not in capsys.readouterr().out
    assert world.take()[0] or (name == "a memoryview" and isinstance(answer, TypeError)), "and it is told"


def test_a_finalizer_without_a_frame_of_its_own(world, monkeypatch):
    with world.guard():
        monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
        Finalizer()
        gc.collect()
    assert (world["plain"] / "f").exists()


def test_sqlite_attaches_nothing_else(world):
    def attach(statement):
        with contextlib.closing(sqlite3.connect("work/db")) as db:
            return str(db.execute(statement).fetchall()) + str(db.execute("select x from other.t").fetchall())

    def vacuum(target):
        with contextlib.closing(sqlite3.connect("work/db")) as db:
            db.execute(f"vacuum into '{target}'")

    secret = f"attach '{world['outside']}/db' as other"
    assert SECRET in attach(secret)
    vacuum(world["outside"] / "new")
    with world.guard():
        with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
            attach(secret)
        with pytest.raises(sqlite3.DatabaseError, match="denied"):
            vacuum(world["outside"] / "new2")
        vacuum(world["work"] / "new")
        assert SECRET in attach(f"attach '{world['extra']}/db' as other")
        with contextlib.closing(sqlite3.connect(":memory:")) as db, pytest.raises(sqlite3.DatabaseError):
            db.execute("attach ? as other", [str(world["outside"] / "db")])
        for name in (":memory:", "", "file::memory:?cache=shared", "file:x?mode=memory"):
            sqlite3.connect(name, uri=True).close()
        assert SECRET in query("file:plain/db?mode=ro", uri=True)
        for name in ("file:plain/db", "file:plain/db?mode=ro&mode=rwc", "file:private/db?mode=ro"):
            refused(lambda: sqlite3.connect(name, uri=True))  # noqa: B023
    assert not (world["outside"] / "new2").exists()


def test_a_plain_name_that_looks_like_an_address(world):
    """Without ``uri=True``, and where sqlite was built so, it is a name in a folder called "file:"."""
    (world["work"] / "file:").mkdir()
    os.chdir("work")
    name = "file:/../../../outside/db"
    assert Path(name).read_bytes() == DATABASE
    assert [ask.path for ask in _hooked.ASKS["sqlite3.connect"]((name,), None)] == [
        name,
        "/../../../outside/db",
    ]
    with world.guard():
        refused(lambda: sqlite3.connect(name))


def test_sockets_that_are_files(world):
    with folder_fd(world["outside"]) as fd, socket.socket(socket.AF_UNIX) as server:
        name = f"/proc/self/fd/{fd}/s"
        server.bind(name)
        server.listen()

        def connect():
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(name)

        connect()
        with world.guard():
            refused(connect)
            asyncio.run(asyncio.sleep(0))
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(f"\0fsjail-{os.getpid()}")  # no name in the file system


def test_load_extension(world):
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        if not hasattr(db, "load_extension"):
            pytest.skip("sqlite3 was built without")
        db.enable_load_extension(True)
        with world.guard():
            refused(lambda: db.load_extension("work/x"))


ROOTS = ["work", "private", "plain", "..", ".", "sub", "f", "link", "out", "nowhere", "", "outside", "root"]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(ROOTS), min_size=1, max_size=7), st.booleans())
def test_no_spelling_reaches_a_secret(world, parts, absolute):
    """The kernel is the oracle: whatever it opens under the guard has an allowed place."""
    for link, target in (
        ("link", "../private"),
        ("out", world["outside"]),
        ("sub/link", "../../private/sub"),
    ):
        with contextlib.suppress(FileExistsError):
            (world["work"] / link).symlink_to(target)
    name = "/".join([str(world["root"]), *parts] if absolute else parts) or "."
    with world.guard():
        try:
            with open(name) as file:
                place = os.readlink(f"/proc/self/fd/{file.fileno()}")
        except OSError:
            place = str(world["work"])
        try:
            fd = os.open(name, os.O_RDONLY)
            listed = os.readlink(f"/proc/self/fd/{fd}")
            os.close(fd)
        except OSError:
            listed = place
    for each in (place, listed):
        assert each.startswith((str(world["work"]), str(world["plain"]))) or each == str(world["root"])


def test_every_refusal_without_a_rule_says_in_its_decision_what_stood_against_it():
    labels = {_hooked.RUN, _hooked.LOAD, _hooked.THREAD, _hooked.JAIL, _hooked.UNCLEAR, _rawcalls.FAILED}
    assert labels == set(OF_GUARD)
    for label in labels:
        assert OF_GUARD[label] in str(Decision(False, "run", "x", None, label, None))
