"""Bad input gets a typed error that names what was wrong, tells nothing of the host and changes nothing."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import shutil
import stat
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from _attackers import (
    RESOLVERS,
    Scene,
    assert_clean,
    attempt,
    drop_to_nobody,
    holders_of,
    in_child,
    make_scene,
    make_socket,
    names_in,
    outcome,
    pick_resolver,
    text_of,
    watchdog,
)
from fsjail import (
    AccessDenied,
    ConfigError,
    Jail,
    JailError,
    LimitExceeded,
    Limits,
    NotRegularFile,
    OutOfBounds,
    Policy,
    PolicyDenied,
    Rules,
    TrashError,
)
from fsjail._errors import InvalidName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OPEN = Policy(read=Rules(deny=["private/"]), write=Rules(allow=["*"]), presets=())

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="mounting and device files need root")


def _open(jail: Jail, path: str, mode: str) -> object:
    with jail.open(path, mode) as file:
        return file.read() if "r" in mode else file.write("EVIL")


def _open_update(jail: Jail, path: str) -> object:
    with jail.open(path, "r+") as file:
        return file.write("EVIL")


READS: dict[str, Callable[[Jail, str], object]] = {
    "read_bytes": lambda jail, path: jail.read_bytes(path),
    "read_range": lambda jail, path: jail.read_bytes(path, offset=2, limit=2),
    "read_text": lambda jail, path: jail.read_text(path),
    "read_lines": lambda jail, path: jail.read_lines(path),
    "open r": lambda jail, path: _open(jail, path, "r"),
    "open rb": lambda jail, path: _open(jail, path, "rb"),
    "copy from": lambda jail, path: jail.copy(path, "copied"),
}
LOOKS: dict[str, Callable[[Jail, str], object]] = {
    "stat": lambda jail, path: jail.stat(path),
    "lstat": lambda jail, path: jail.stat(path, follow_symlinks=False),
    "listdir": lambda jail, path: jail.listdir(path),
    "walk": lambda jail, path: list(jail.walk(path)),
    "glob": lambda jail, path: jail.glob("*", path),
    "grep": lambda jail, path: list(jail.grep("F", path)),
}
ASKS: dict[str, Callable[[Jail, str], object]] = {
    "exists": lambda jail, path: jail.exists(path),
    "is_file": lambda jail, path: jail.is_file(path),
    "is_dir": lambda jail, path: jail.is_dir(path),
}
WRITES: dict[str, Callable[[Jail, str], object]] = {
    "write_bytes": lambda jail, path: jail.write_bytes(path, b"EVIL"),
    "write_text": lambda jail, path: jail.write_text(path, "EVIL"),
    "write parents": lambda jail, path: jail.write_text(path, "EVIL", parents=True),
    "append": lambda jail, path: jail.append_text(path, "EVIL"),
    "edit": lambda jail, path: jail.edit(path, "F", "EVIL"),
    "open w": lambda jail, path: _open(jail, path, "w"),
    "open a": lambda jail, path: _open(jail, path, "a"),
    "open r+": _open_update,
    "open x": lambda jail, path: _open(jail, path, "x"),
    "mkdir": lambda jail, path: jail.mkdir(path),
    "mkdir parents": lambda jail, path: jail.mkdir(path, parents=True),
    "copy to": lambda jail, path: jail.copy("f", path),
    "copy over": lambda jail, path: jail.copy("f", path, overwrite=True),
    "move from": lambda jail, path: jail.move(path, "moved"),
    "move to": lambda jail, path: jail.move("f", path),
    "move over": lambda jail, path: jail.move("f", path, overwrite=True),
    "delete": lambda jail, path: jail.delete(path),
    "restore": lambda jail, path: jail.trash.restore(jail.trash.items()[0].id, to=path),
}


@pytest.fixture(params=RESOLVERS)
def scene(request, tmp_path, monkeypatch) -> Scene:
    pick_resolver(monkeypatch, request.param)
    return fill(make_scene(tmp_path))


def fill(scene: Scene) -> Scene:
    root = scene.root
    (root / "d").mkdir()
    (root / "d" / "g").write_text("G\n")
    (root / "f").write_text("F\n")
    (root / "private").mkdir()
    (root / "private" / "k").write_text("K")
    os.symlink("loop", root / "loop")
    os.symlink("b", root / "a")
    os.symlink("a", root / "b")
    os.symlink("grow/x", root / "grow")
    return scene


@contextmanager
def jail_on(scene: Scene, policy: Policy = OPEN, **more: Any) -> Iterator[Jail]:
    """A jail with one item in its trash."""
    with Jail(scene.root, policy, state=scene.state, **more) as jail:
        jail.write_text("scrap", "scrap")
        jail.delete("scrap")
        yield jail


def inner(scene: Scene) -> dict[str, object]:
    return names_in(scene.root, skip={".fsjail"})


# -- names ---------------------------------------------------------------------------------------------

NAMES = {
    "nul": ("a\0b", InvalidName, errno.EINVAL),
    "nul at the end": ("f\0", InvalidName, errno.EINVAL),
    "nul alone": ("\0", InvalidName, errno.EINVAL),
    "empty": ("", InvalidName, errno.EINVAL),
    "5,000 bytes": ("x/" * 2500, InvalidName, errno.ENAMETOOLONG),
    "4,096 bytes": ("x" * 4096, InvalidName, errno.ENAMETOOLONG),
    "2,000 characters of 3 bytes": ("\u20ac" * 2000, InvalidName, errno.ENAMETOOLONG),
    "unencodable": ("\ud800", InvalidName, errno.EINVAL),
    "unencodable below": ("d/\udfff/g", InvalidName, errno.EINVAL),
    "a component of 256 bytes": ("x" * 256, OSError, errno.ENAMETOOLONG),
    "a component of 256 bytes below": ("d/" + "\u00e9" * 128, OSError, errno.ENAMETOOLONG),
    "a loop": ("loop", OSError, errno.ELOOP),
    "a loop of two": ("a", OSError, errno.ELOOP),
    "through a loop": ("loop/x", OSError, errno.ELOOP),
    "through a growing loop": ("grow/x", OSError, errno.ELOOP),
    "below a file": ("f/x", NotADirectoryError, errno.ENOTDIR),
    "below nothing": ("nope/x", FileNotFoundError, errno.ENOENT),
}
# Operations on the name itself do not follow a link at its end, and may replace it.
ON_NAME = {
    "lstat",
    "delete",
    "move from",
    "move to",
    "move over",
    "copy over",
    "copy to",
    "copy from",
    "mkdir",
    "mkdir parents",
    "open x",
    "restore",
}
MAKES_PARENTS = {"write parents", "mkdir parents", "restore"}


@pytest.mark.parametrize("bad", NAMES)
def test_bad_names(bad, scene):
    path, kind, code = NAMES[bad]
    before = inner(scene)
    with jail_on(scene) as jail:
        for name, call in {**READS, **LOOKS, **WRITES}.items():
            if code == errno.ELOOP and "/" not in path and name in ON_NAME:
                continue
            if code == errno.ENOENT and name in MAKES_PARENTS:
                continue
            with watchdog():
                error, value = attempt(lambda call=call: call(jail, path))
            assert error is not None, f"{name} accepted it: {value!r}"
            assert isinstance(error, kind), f"{name}: {error!r}"
            assert error.errno == code, f"{name}: {error!r}"
            assert error.filename == path, f"{name}: {error.filename!r}"
            assert_clean(error, scene)
        for name, ask in ASKS.items():
            error, value = attempt(lambda ask=ask: ask(jail, path))
            assert value in {False, None}, f"{name} says {value}"
            assert error is None or isinstance(error, (InvalidName, OSError))
    assert inner(scene) == before
    assert scene.around()


@pytest.mark.parametrize("bad", NAMES)
def test_bad_names_in_check(bad, scene):
    """A check of a name that cannot be is a refusal or the same error, never a yes to something unnamed."""
    path, _, code = NAMES[bad]
    with jail_on(scene) as jail:
        for op in ("read", "list", "write", "edit", "mkdir", "delete"):
            error, decision = attempt(lambda op=op: jail.check(op, path))
            if error is None:
                assert str(scene.base) not in str(decision)
                assert code != errno.EINVAL or not decision
            else:
                assert_clean(error, scene)
        error, _ = attempt(lambda: jail.check("move", "f", path))
        assert error is None or isinstance(error, OSError)


@pytest.mark.parametrize("path", [b"f", 7, None, ["f"], object()])
def test_a_path_that_is_no_path(path, scene):
    with jail_on(scene) as jail:
        for call in (jail.read_text, jail.listdir, jail.delete, jail.exists):
            with pytest.raises(TypeError):
                call(path)


def test_path_objects_work(scene):
    with jail_on(scene) as jail:
        assert jail.read_text(Path("d") / "g") == "G\n"
        jail.write_text(Path("d/new"), "N")
        assert (scene.root / "d/new").read_text() == "N"


@pytest.mark.parametrize("mode", ["", "z", "rw", "rbt", "wxb", "a r", "r\0", "U", "+"])
def test_bad_modes(mode, scene):
    """A mode that makes no sense is refused before anything is opened."""
    before = inner(scene)
    with jail_on(scene) as jail, pytest.raises(ValueError):
        jail.open("f", mode)
    assert inner(scene) == before


def test_bad_operations_in_check(scene):
    with jail_on(scene) as jail:
        for op in ("", "chmod", "READ", "read "):
            with pytest.raises(ValueError):
                jail.check(op, "f")


@pytest.mark.parametrize("text", ["\ud800", "a\udc80b"])
def test_text_that_cannot_be_encoded(text, scene):
    before = inner(scene)
    with jail_on(scene) as jail:
        for call in (
            lambda: jail.write_text("f", text),
            lambda: jail.write_text("new", text),
            lambda: jail.append_text("f", text),
            lambda: jail.edit("f", "F", text),
            lambda: _open_write(jail, "f", text),
        ):
            with pytest.raises((UnicodeEncodeError, OSError)):
                call()
    assert inner(scene) == before


def _open_write(jail: Jail, path: str, text: str) -> None:
    with jail.open(path, "w", encoding="utf-8") as file:
        file.write(text)


def test_a_missing_codec_changes_nothing(scene):
    before = inner(scene)
    with jail_on(scene) as jail:
        for call in (
            lambda: jail.read_text("f", encoding="nope"),
            lambda: jail.open("f", "w", encoding="nope"),
        ):
            with pytest.raises(LookupError):
                call()
    assert inner(scene) == before


def test_bytes_that_are_no_text(scene):
    (scene.root / "bin").write_bytes(b"\xff\xfe\x00\x80")
    before = inner(scene)
    with jail_on(scene) as jail:
        for call in (
            lambda: jail.read_text("bin"),
            lambda: jail.read_lines("bin"),
            lambda: jail.edit("bin", "a", "b"),
        ):
            with pytest.raises((UnicodeDecodeError, JailError)) as caught:
                call()
            assert str(scene.base) not in str(caught.value)
            assert type(pickle.loads(pickle.dumps(caught.value))) is type(caught.value)
    assert inner(scene) == before


def test_numbers_that_make_no_sense(scene):
    before = inner(scene)
    with jail_on(scene) as jail:
        for call in (
            lambda: jail.read_bytes("f", offset=-1),
            lambda: jail.read_bytes("f", limit=-1),
            lambda: jail.read_lines("f", 0),
            lambda: jail.read_lines("f", -3),
            lambda: jail.read_lines("f", 1, -1),
            lambda: jail.edit("f", "F", "G", count=-1),
            lambda: jail.edit("f", "", "G"),
        ):
            with pytest.raises((ValueError, JailError)):
                call()
    assert inner(scene) == before


# -- roots ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("nope", FileNotFoundError),
        ("nope/deeper", FileNotFoundError),
        ("root/f", NotADirectoryError),
        ("root/f/x", NotADirectoryError),
        ("root/loop", OSError),
        ("root/p", NotADirectoryError),
    ],
)
def test_roots_that_cannot_be(name, kind, scene):
    os.mkfifo(scene.root / "p")
    before = names_in(scene.base)
    with watchdog(), pytest.raises(kind) as caught:
        Jail(scene.base / name, OPEN, state=scene.state)
    assert type(pickle.loads(pickle.dumps(caught.value))) is type(caught.value)
    assert names_in(scene.base) == before


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_root_names_that_cannot_be(name, scene):
    with pytest.raises((OSError, ValueError)):
        Jail(name, OPEN, state=scene.state)


def test_a_resolver_that_does_not_exist(scene, monkeypatch):
    monkeypatch.setenv("FSJAIL_RESOLVER", "magic")
    with pytest.raises(ValueError, match="FSJAIL_RESOLVER"):
        Jail(scene.root, OPEN, state=scene.state)


# -- what is no regular file ---------------------------------------------------------------------------


def _device(minor: int) -> Callable[[Path], None]:
    return lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, minor))


SPECIALS = {
    "fifo": os.mkfifo,
    "socket": make_socket,
    "null": _device(3),
    "zero": _device(5),
    "full": _device(7),
}


@pytest.mark.parametrize("link", [False, True], ids=["itself", "behind a link"])
@pytest.mark.parametrize("special", SPECIALS)
def test_what_is_no_regular_file(special, link, scene):
    """Every operation answers at once; none reads from it, writes into it or waits for it."""
    if special not in {"fifo", "socket"} and os.getuid() != 0:
        pytest.skip("device files need root")
    try:
        SPECIALS[special](scene.root / "p")
    except PermissionError as error:
        pytest.skip(f"no {special} can be made here: {error}")
    path = "p"
    if link:
        os.symlink("p", scene.root / "lp")
        path = "lp"
    os.mkdir(scene.root / "tree")
    SPECIALS[special](scene.root / "tree" / "p")
    before = inner(scene)
    with jail_on(scene) as jail:
        for name, call in READS.items():
            if name == "copy from" and link:
                continue  # a link may be copied as a link
            with watchdog(2):
                error, value = attempt(lambda call=call: call(jail, path))
            assert isinstance(error, NotRegularFile), f"{name}: {error!r} {value!r}"
            assert error.filename == path
            assert_clean(error, scene)
        for name in ("write_bytes", "write_text", "append", "edit", "open w", "open a", "open r+"):
            with watchdog(2):
                error, value = attempt(lambda name=name: WRITES[name](jail, path))
            assert isinstance(error, NotRegularFile), f"{name}: {error!r} {value!r}"
            assert_clean(error, scene)
        for name in ("open x", "mkdir", "mkdir parents", "copy to", "move to", "restore"):
            with watchdog(2):
                error, value = attempt(lambda name=name: WRITES[name](jail, path))
            assert isinstance(error, (FileExistsError, NotRegularFile, TrashError)), (
                f"{name}: {error!r} {value!r}"
            )
            assert_clean(error, scene)
        assert inner(scene) == before
        with watchdog(2):
            assert outcome(attempt(lambda: jail.listdir(path))[0]) == "notdir"
            assert outcome(attempt(lambda: jail.read_text(path + "/"))[0]) == "notdir"
            assert outcome(attempt(lambda: jail.write_text(path + "/x", "x"))[0]) == "notdir"
            assert jail.exists(path)
            assert not jail.is_file(path)
            assert not jail.is_dir(path)
            assert stat.S_IFMT(jail.stat(path).st_mode) == stat.S_IFMT((scene.root / "p").stat().st_mode)
            assert {entry.name: entry.kind for entry in jail.listdir()}["p"] == "other"
            list(jail.walk())
            assert "f" in jail.glob("**")
            assert {hit.path for hit in jail.grep("")} >= {"f", "d/g"}
            attempt(lambda: list(jail.grep("", path)))
            error, _ = attempt(lambda: jail.copy("tree", "copied tree"))
            assert error is None or isinstance(error, NotRegularFile), error
        assert inner(scene) == before or error is None
        with watchdog(2):  # the name itself is only a name
            jail.move("p", "q")
            assert stat.S_IFMT((scene.root / "q").lstat().st_mode) == stat.S_IFMT(
                (scene.root / "tree/p").lstat().st_mode
            )
            jail.delete("q")
            jail.delete("tree")


@pytest.mark.parametrize("call", ["copy over", "move over"])
def test_nothing_is_written_into_a_fifo_by_replacing_it(call, scene):
    os.mkfifo(scene.root / "p")
    with jail_on(scene) as jail, watchdog(2):
        error, _ = attempt(lambda: WRITES[call](jail, "p"))
    assert error is None or isinstance(error, (NotRegularFile, FileExistsError)), error
    kept = stat.S_ISFIFO((scene.root / "p").lstat().st_mode)
    assert kept == (error is not None)
    assert error is None or (scene.root / "f").read_text() == "F\n"


def test_a_fifo_that_takes_the_place_of_a_file(scene, monkeypatch):
    """The seam between look and open: what was a file when it was judged is a FIFO when it is opened."""
    from fsjail import _root

    real = _root.Target.open
    swapped = []

    def swap(self: Any, *args: Any) -> int:
        if not swapped and self.leaf == "f":
            swapped.append(True)
            os.unlink(scene.root / "f")
            os.mkfifo(scene.root / "f")
        return real(self, *args)

    monkeypatch.setattr(_root.Target, "open", swap)
    monkeypatch.setenv("FSJAIL_RESOLVER", "walk")
    with jail_on(scene) as jail, watchdog(2):
        error, value = attempt(lambda: jail.read_text("f"))
    if swapped:
        assert isinstance(error, (NotRegularFile, FileNotFoundError)), (error, value)


# -- files that vanish or change mid-call (see test_races for the live form) ---------------------------


@pytest.mark.parametrize(
    "name", ["read_text", "read_bytes", "read_lines", "copy from", "edit", "append", "move from", "delete"]
)
@pytest.mark.parametrize("instead", ["nothing", "directory", "link out"])
def test_a_file_that_vanishes_after_it_was_judged(name, instead, scene, monkeypatch):
    """The judge is the seam: once it has said yes, the name becomes something else."""
    (scene.outside / "f").write_text("SECRET F")
    around = scene.around()
    done: list[bool] = []
    real = Policy.judge

    def judge(self: Policy, *args: Any, **more: Any) -> Any:
        verdict = real(self, *args, **more)
        if not done and args[1] == "f":
            done.append(True)
            (scene.root / "f").unlink()
            if instead == "directory":
                (scene.root / "f").mkdir()
            elif instead == "link out":
                os.symlink("../outside/f", scene.root / "f")
        return verdict

    with jail_on(scene) as jail:
        monkeypatch.setattr(Policy, "judge", judge)
        with watchdog(2):
            error, value = attempt(lambda: {**READS, **WRITES}[name](jail, "f"))
        monkeypatch.setattr(Policy, "judge", real)
    if not done:
        pytest.skip("this call takes its answer from elsewhere")
    assert scene.around() == around
    assert "SECRET" not in text_of(value)
    assert not holders_of("SECRET", scene.root)
    if error is not None:
        assert_clean(error, scene)
        assert error.filename == "f"
    elif instead == "nothing":
        assert name == "append", f"{name} answered {value!r} for a file that was gone"


# -- storage that fails --------------------------------------------------------------------------------

OLD = b"old " * 5000  # 20 kB
BIG = 3 * 2**20

FILLING: dict[str, Callable[[Jail], object]] = {
    "write_bytes": lambda jail: jail.write_bytes("old", b"n" * BIG),
    "write_text": lambda jail: jail.write_text("old", "n" * BIG),
    "write new": lambda jail: jail.write_bytes("new", b"n" * BIG),
    "write parents": lambda jail: jail.write_bytes("p/q/new", b"n" * BIG, parents=True),
    "append": lambda jail: jail.append_text("old", "n" * BIG),
    "edit": lambda jail: jail.edit("small", "x", "n" * BIG),
    "open w": lambda jail: _stream(jail, "w"),
    "open a": lambda jail: _stream(jail, "a"),
    "open x": lambda jail: _stream(jail, "x", "new"),
}


def _stream(jail: Jail, mode: str, path: str = "old") -> None:
    with jail.open(path, mode) as file:
        for _ in range(BIG // 2**16):
            file.write("n" * 2**16)


@contextmanager
def mounted(where: Path, options: str = "size=1m") -> Iterator[None]:
    """Mount a tmpfs of its own; unmounts whatever happens."""
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("there is no mount command")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", options, "fsjail-test", where],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", where], check=True)


def debris(root: Path) -> list[str]:
    """Name what a broken change left behind: anything but the four files, and anything staged."""
    left = [str(path.relative_to(root)) for path in root.rglob("*") if ".fsjail" not in path.parts]
    stage = root / ".fsjail" / "stage"
    staged = [f".fsjail/stage/{name}" for name in os.listdir(stage)] if stage.is_dir() else []
    trash = root / ".fsjail" / "Trash"
    claims = os.listdir(trash / "info") if (trash / "info").is_dir() else []
    held = (
        {name + ".trashinfo" for name in os.listdir(trash / "files")} if (trash / "files").is_dir() else set()
    )
    return (
        sorted(set(left) - {"old", "small"})
        + staged
        + [f"info/{name}" for name in claims if name not in held]
    )


def _store(root: Path) -> None:
    (root / "old").write_bytes(OLD)
    (root / "small").write_text("x")


@needs_root
@pytest.mark.parametrize("name", FILLING)
@pytest.mark.parametrize("resolver", RESOLVERS)
def test_a_full_disk(name, resolver, tmp_path, monkeypatch):
    pick_resolver(monkeypatch, resolver)
    scene = make_scene(tmp_path)
    with mounted(scene.root):
        _store(scene.root)
        with Jail(scene.root, OPEN, state=scene.state) as jail:
            free = os.statvfs(scene.root).f_bavail
            for _ in range(3):
                error, _ = attempt(lambda: FILLING[name](jail))
                assert isinstance(error, OSError)
                assert error.errno in {errno.ENOSPC, errno.EDQUOT}, error
                assert_clean(error, scene)
                assert (scene.root / "old").read_bytes() == OLD
                assert (scene.root / "small").read_text() == "x"
                assert not debris(scene.root)
                assert jail.trash.items() == []
            assert os.statvfs(scene.root).f_bavail >= free - 16, "space is lost"
            jail.write_text("old", "and it works again")
            assert jail.read_text("old") == "and it works again"


@needs_root
@pytest.mark.parametrize("resolver", RESOLVERS)
def test_delete_on_a_disk_without_any_room(resolver, tmp_path, monkeypatch):
    """A full disk never turns a delete into a permanent one: it works, or it fails and keeps the file."""
    pick_resolver(monkeypatch, resolver)
    scene = make_scene(tmp_path)
    with mounted(scene.root):
        _store(scene.root)
        with suppress(OSError), (scene.root / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        assert os.statvfs(scene.root).f_bavail == 0
        with Jail(scene.root, OPEN, state=scene.state) as jail:
            for call in (
                lambda: jail.delete("old"),
                lambda: jail.write_text("small", "y"),
                lambda: jail.move("small", "old", overwrite=True),
                lambda: jail.copy("small", "copied"),
            ):
                error, _ = attempt(call)
                if error is not None:
                    assert_clean(error, scene)
                assert any(
                    path.read_bytes() == OLD
                    for path in scene.root.rglob("*")
                    if path.is_file() and not path.is_symlink()
                ), "the content is gone"
            assert holders_of("x", scene.root)
        (scene.root / "filler").unlink()
        with Jail(scene.root, OPEN, state=scene.state) as jail:
            jail.trash.recover()
            if not (scene.root / "old").exists():
                items = [item for item in jail.trash.items() if item.path == "old"]
                assert items
                jail.trash.restore(items[0].id)
            assert (scene.root / "old").read_bytes() == OLD


@needs_root
@pytest.mark.parametrize("resolver", RESOLVERS)
def test_no_inodes_left(resolver, tmp_path, monkeypatch):
    """No inode for the claim or the stage: refused, nothing lost."""
    pick_resolver(monkeypatch, resolver)
    scene = make_scene(tmp_path)
    with mounted(scene.root, "size=1m,nr_inodes=20"):
        _store(scene.root)
        with Jail(scene.root, OPEN, state=scene.state) as jail:
            for number in range(60):
                error, _ = attempt(lambda number=number: jail.write_text("small", f"x{number}"))
                if error is not None:
                    break
            assert isinstance(error, OSError)
            assert error.errno in {errno.ENOSPC, errno.EDQUOT}
            kept = (scene.root / "small").read_text()
            assert kept == ("x" if number == 0 else f"x{number - 1}")
            assert_clean(error, scene)
            attempt(lambda: jail.delete("old"))
            assert any(path.read_bytes() == OLD for path in scene.root.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", FILLING)
@pytest.mark.parametrize("resolver", RESOLVERS)
def test_a_file_size_limit(name, resolver, tmp_path, monkeypatch):
    """RLIMIT_FSIZE: a write stops half way, as on a full disk, without root's help."""
    pick_resolver(monkeypatch, resolver)
    scene = make_scene(tmp_path)
    _store(scene.root)

    def work() -> tuple[str, int | None, bytes, list[str]]:
        with Jail(scene.root, OPEN, state=scene.state) as jail:
            jail.write_text("small", "x")  # the log and the trash exist
            for item in jail.trash.purge(keep_bytes=0):
                del item
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
            error, _ = attempt(lambda: FILLING[name](jail))
            if error is not None:
                assert_clean(error, scene)
            return (
                outcome(error),
                getattr(error, "errno", None),
                (scene.root / "old").read_bytes(),
                debris(scene.root),
            )

    kind, code, old, left = in_child(work)
    assert code == errno.EFBIG, kind
    assert old == OLD
    assert not left
    assert (scene.root / "small").read_text() == "x"


@needs_root
@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("resolver", RESOLVERS)
def test_a_read_only_file_system(name, resolver, tmp_path, monkeypatch):
    pick_resolver(monkeypatch, resolver)
    scene = make_scene(tmp_path)
    with mounted(scene.root):
        fill(scene)
        with jail_on(scene):
            pass  # there is something to restore
        subprocess.run(["mount", "-o", "remount,ro", scene.root], check=True)
        before = names_in(scene.root)
        with Jail(scene.root, OPEN, state=scene.state) as jail:
            assert jail.read_text("f") == "F\n"
            assert "f" in jail.glob("*")
            assert jail.listdir("d")
            assert list(jail.grep("F"))
            path = (
                "new"
                if name
                in {"write parents", "open x", "mkdir", "mkdir parents", "copy to", "move to", "restore"}
                else "f"
            )
            if name in {"copy over", "move over"}:
                path = "d/g"
            error, _ = attempt(lambda: WRITES[name](jail, path))
            assert isinstance(error, OSError), error
            assert error.errno == errno.EROFS, error
            assert_clean(error, scene)
        assert names_in(scene.root) == before


@needs_root
@pytest.mark.parametrize("resolver", RESOLVERS)
def test_a_read_only_file_system_without_a_trash(resolver, tmp_path, monkeypatch):
    """Opening and reading need no writing: no folder of ours has to be there."""
    pick_resolver(monkeypatch, resolver)
    scene = make_scene(tmp_path)
    with mounted(scene.root):
        fill(scene)
        subprocess.run(["mount", "-o", "remount,ro", scene.root], check=True)
        before = names_in(scene.root)
        with Jail(scene.root, OPEN, state=scene.state) as jail:
            assert jail.read_text("d/g") == "G\n"
            assert jail.trash.items() == []
            assert jail.check("write", "f")
            for call in (
                lambda: jail.write_text("f", "x"),
                lambda: jail.delete("f"),
                lambda: jail.mkdir("n"),
            ):
                error, _ = attempt(call)
                assert isinstance(error, OSError)
                assert error.errno == errno.EROFS
                assert_clean(error, scene)
        assert names_in(scene.root) == before


@pytest.mark.skipif(os.getuid() != 0, reason="dropping to another user needs root")
@pytest.mark.parametrize("resolver", RESOLVERS)
def test_folders_of_somebody_else(resolver, monkeypatch):
    """Without the right to write or read, the kernel's answer comes through, with the caller's own path."""
    import tempfile

    pick_resolver(monkeypatch, resolver)
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    try:
        scene = fill(make_scene(folder))
        (scene.root / "closed").mkdir(mode=0o700)
        (scene.root / "closed" / "x").write_text("x")
        (scene.root / "unreadable").write_text("x")
        (scene.root / "unreadable").chmod(0o600)
        os.chown(scene.state, 65534, 65534)
        before = names_in(scene.root)

        def work() -> list[str]:
            drop_to_nobody()
            seen = []
            with Jail(scene.root, OPEN, state=scene.state) as jail:
                assert jail.read_text("f") == "F\n"
                for call in (
                    lambda: jail.read_text("unreadable"),
                    lambda: jail.read_text("closed/x"),
                    lambda: jail.listdir("closed"),
                    lambda: jail.write_text("f", "x"),
                    lambda: jail.write_text("new", "x"),
                    lambda: jail.mkdir("new"),
                    lambda: jail.delete("f"),
                    lambda: jail.move("f", "g"),
                ):
                    error, _ = attempt(call)
                    assert error is not None
                    assert_clean(error, scene)
                    assert error.filename in {"unreadable", "closed/x", "closed", "f", "new", "g"}
                    seen.append(outcome(error))
                list(jail.walk())
                assert "f" in jail.glob("**")
                assert [hit.path for hit in jail.grep("F")] == ["f"]
            return seen

        assert in_child(work) == ["notpermitted"] * 8
        assert names_in(scene.root) == before
    finally:
        shutil.rmtree(folder)


# -- limits --------------------------------------------------------------------------------------------


def test_limits_refuse_before_anything_happens(scene):
    (scene.root / "big").write_bytes(b"b" * 5000)
    with (scene.root / "huge").open("wb") as file:
        file.truncate(2**40)  # a sparse terabyte: reading it would end the host
    before = names_in(scene.root, skip={".fsjail", "huge"})
    with jail_on(scene, limits=Limits(max_read_bytes=4096, max_write_bytes=4096)) as jail:
        for call in (
            lambda: jail.read_bytes("big"),
            lambda: jail.read_text("big"),
            lambda: jail.read_bytes("huge"),
            lambda: jail.read_text("huge"),
            lambda: jail.edit("huge", "a", "b"),
            lambda: jail.write_text("f", "x" * 5000),
            lambda: jail.write_bytes("new", b"x" * 5000),
            lambda: jail.append_text("big", "x"),
            lambda: _open_write(jail, "f", "x" * 5000),
        ):
            with watchdog(2):
                error, _ = attempt(call)
            assert isinstance(error, LimitExceeded), error
            assert error.errno == errno.EFBIG
            assert_clean(error, scene)
        assert jail.read_bytes("big", offset=4990, limit=20) == b"b" * 10
        assert jail.read_bytes("huge", offset=2**39, limit=3) == b"\0\0\0"
    assert names_in(scene.root, skip={".fsjail", "huge"}) == before


def test_a_total_limit(scene):
    with jail_on(scene, limits=Limits(max_total_bytes=100)) as jail:
        jail.write_text("one", "x" * 60)
        error, _ = attempt(lambda: jail.write_text("two", "x" * 60))
        assert isinstance(error, LimitExceeded)
        assert error.errno == errno.EDQUOT
        assert_clean(error, scene)
    assert not (scene.root / "two").exists()


def test_a_hostile_expression_ends(scene):
    (scene.root / "a.txt").write_text("a" * 5000 + "!\n")
    with jail_on(scene) as jail, watchdog(10):
        for pattern in ("(a+)+$", "(a|aa)+$", "(a|a?)+$", "([a-z]+)*Z"):
            attempt(lambda pattern=pattern: list(jail.grep(pattern)))


@pytest.mark.parametrize("pattern", ["(", "[", "*a", "a{2", "(?P<x", "\\"])
def test_an_expression_that_cannot_be_read(pattern, scene):
    with jail_on(scene) as jail:
        try:
            list(jail.grep(pattern))
        except (ValueError, JailError) as refused:
            told = str(refused)
        else:
            told = ""
        assert str(scene.base) not in told
        assert not [hit for hit in jail.grep(pattern, literal=True) if pattern not in hit.text]


# -- ids of the trash ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad", ["", ".", "..", "nope", "../info/x", "../../f", "a/b", "a\0b", "x" * 300, "\ud800"]
)
def test_trash_ids_that_cannot_be(bad, scene):
    before = inner(scene)
    with jail_on(scene) as jail:
        count = len(jail.trash.items())
        error, _ = attempt(lambda: jail.trash.restore(bad))
        assert isinstance(error, (TrashError, InvalidName, AccessDenied)), error
        assert_clean(error, scene)
        assert len(jail.trash.items()) == count
    assert inner(scene) == before


# -- the errors themselves -----------------------------------------------------------------------------


def test_every_error_pickles(scene):
    with jail_on(scene) as jail:
        errors: list[BaseException] = [ConfigError("bad", "fsjail.toml", 3), ConfigError("bad")]
        for call in (
            lambda: jail.read_text("../x"),
            lambda: jail.read_text("private/k"),
            lambda: jail.delete("."),
            lambda: jail.read_text(""),
            lambda: jail.read_text("d"),
            lambda: jail.read_text("nope"),
            lambda: jail.trash.restore("nope"),
            lambda: jail.edit("f", "missing", "x"),
            lambda: jail.mkdir("d"),
            lambda: jail.copy("f", "d"),
        ):
            error, _ = attempt(call)
            assert error is not None
            errors.append(error)
        for error in errors:
            back = pickle.loads(pickle.dumps(error))
            assert type(back) is type(error)
            assert str(back) == str(error)
        kinds = {type(error) for error in errors}
        assert kinds >= {
            ConfigError,
            OutOfBounds,
            PolicyDenied,
            InvalidName,
            IsADirectoryError,
            FileNotFoundError,
            TrashError,
        }
        denied = next(error for error in errors if isinstance(error, PolicyDenied))
        assert denied.decision is not None
        assert not denied.decision
        assert denied.decision.rule is not None
        assert denied.decision.rule.pattern == "private/"
        assert "private/" in str(denied)


def test_errors_are_what_python_users_catch(scene):
    with jail_on(scene) as jail:
        for call, kinds in (
            (lambda: jail.read_text("../x"), (PermissionError, OSError, JailError, AccessDenied)),
            (lambda: jail.read_text("private/k"), (PermissionError, AccessDenied)),
            (lambda: jail.read_text("a\0b"), (ValueError, OSError, JailError)),
            (lambda: jail.read_text("nope"), (FileNotFoundError,)),
            (lambda: jail.read_text("d"), (IsADirectoryError,)),
            (lambda: jail.listdir("f"), (NotADirectoryError,)),
            (lambda: jail.mkdir("d"), (FileExistsError,)),
            (lambda: jail.trash.restore("nope"), (TrashError, OSError)),
        ):
            for kind in kinds:
                with pytest.raises(kind):
                    call()
