"""The trash: its layout and format, other programs on it, restoring, purging, crashes and crowds."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from _attackers import drop_to_nobody, in_child
from fsjail import Jail, Limits, OutOfBounds, Policy, PolicyDenied, Rules, TrashError, TrashItem
from fsjail._trashinfo import make_info, parse_info, parse_usual

OPEN = Policy(write=Rules(allow=["*"]))
PROGRAMS = Path(sys.executable).parent


@pytest.fixture
def root(base) -> Path:
    return base / "root"


@pytest.fixture
def make(root, tmp_path):
    made: list[Jail] = []

    def make_jail(policy: Policy = OPEN, **options) -> Jail:
        options.setdefault("state", tmp_path / "state")
        made.append(Jail(root, policy, **options))
        return made[-1]

    yield make_jail
    for each in made:
        each.close()


@pytest.fixture
def jail(make) -> Jail:
    return make(actor="agent 7")


def home(root: Path) -> Path:
    return root / ".fsjail"


def files(root: Path) -> Path:
    return home(root) / "Trash" / "files"


def info(root: Path) -> Path:
    return home(root) / "Trash" / "info"


def visible(root: Path) -> dict[str, str | None]:
    return {
        str(path.relative_to(root)): path.read_text() if path.is_file() and not path.is_symlink() else None
        for path in sorted(root.rglob("*"))
        if ".fsjail" not in path.relative_to(root).parts
    }


def kept(root: Path) -> list[str]:
    return [path.read_text() for path in sorted(files(root).rglob("*")) if path.is_file()]


def tidy(root: Path, *, empty_claims: bool = False) -> None:
    """Nothing on its way, and one info file for each thing that is kept."""
    assert os.listdir(home(root) / "stage") == []
    names = {
        name.removesuffix(".trashinfo")
        for name in os.listdir(info(root))
        if not (empty_claims and (info(root) / name).stat().st_size == 0)
    }
    assert names == set(os.listdir(files(root)))


# ── layout and format ──────────────────────────────────────────────────────────────────────────


def test_the_layout(jail, root):
    assert not home(root).exists(), "made by the first change only"
    jail.write_text("f", "x")
    jail.delete("f")
    assert {".gitignore", "Trash", "lock", "stage"} <= set(os.listdir(home(root)))
    assert {"files", "info"} <= set(os.listdir(home(root) / "Trash"))
    for folder in (home(root), home(root) / "stage", files(root), info(root)):
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert (home(root) / ".gitignore").read_text() == "*\n"


def test_the_info_file_byte_for_byte(jail, root):
    name = "a b/é%\n\udcff"
    os.makedirs(root / "a b")
    (root / name).write_text("content")
    begin = time.time_ns()
    item = jail.delete(name).saved
    end = time.time_ns()
    assert item is not None
    text = (info(root) / f"{item.id}.trashinfo").read_bytes()
    lines = text.decode("ascii").split("\n")
    assert lines[-1] == ""
    assert lines[0] == "[Trash Info]"
    assert lines[1] == f"Path={quote(os.fsencode(os.path.join(root, name)), safe='/')}"
    assert lines[1].endswith("/a%20b/%C3%A9%25%0A%FF")
    stamp = int(lines[4].removeprefix("X-Fsjail-Time="))
    assert begin <= stamp <= end
    assert lines[2] == time.strftime("DeletionDate=%Y-%m-%dT%H:%M:%S", time.localtime(stamp // 10**9))
    assert lines[3] == "X-Fsjail-Path=a%20b/%C3%A9%25%0A%FF"
    wanted = ["X-Fsjail-Why=deleted", "X-Fsjail-Actor=agent%207", "X-Fsjail-Size=7", ""]
    assert lines[5:] == wanted
    assert stat.S_IMODE(os.stat(info(root) / f"{item.id}.trashinfo").st_mode) == 0o600
    [again] = jail.trash.items()
    assert again == item
    assert (again.path, again.why, again.actor, again.size, again.kind) == (
        name,
        "deleted",
        "agent 7",
        7,
        "file",
    )
    assert again.deleted_at.tzinfo is not None
    assert jail.trash.restore(item.id) == name


def test_no_actor(make, root):
    jail = make()
    jail.write_text("f", "x")
    item = jail.delete("f").saved
    assert item is not None
    assert item.actor is None
    assert b"Actor" not in (info(root) / f"{item.id}.trashinfo").read_bytes()


def test_items(jail, root):
    assert jail.trash.items() == []
    assert jail.trash.recover() == []
    (root / "d/e").mkdir(parents=True)
    (root / "d/e/f").write_text("12345")
    (root / "d/g").write_text("123")
    (root / "l").symlink_to("d")
    jail.delete("l")
    jail.delete("d")
    items = jail.trash.items()
    assert [(item.path, item.kind) for item in items] == [("d", "directory"), ("l", "link")]
    assert items[0].size == 8
    assert items[0].deleted_at >= items[1].deleted_at


def test_a_closed_jail_can_be_closed_again_and_another_reads_it(make, root):
    jail = make()
    jail.write_text("f", "x")
    jail.delete("f")
    jail.close()
    assert [item.path for item in make(state=root.parent / "s2").trash.items()] == ["f"]


# ── other programs ─────────────────────────────────────────────────────────────────────────────


def program(name: str) -> str:
    found = PROGRAMS / name
    if not found.exists():
        pytest.skip(f"{name} (trash-cli) is not installed beside this Python")
    return str(found)


def call(name: str, *arguments: str, root: Path, answer: str = "") -> str:
    done = subprocess.run(
        [program(name), *arguments],
        input=answer,
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
        # The home trash of the specification is $XDG_DATA_HOME/Trash: here the jail's own.
        env={**os.environ, "XDG_DATA_HOME": str(home(root)), "HOME": str(root.parent)},
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_trash_cli_lists_and_restores_what_the_jail_kept(jail, root):
    (root / "d").mkdir()
    (root / "d/f é.txt").write_text("content")
    jail.write_text("d/g", "old")
    jail.write_text("d/g", "new")
    jail.delete("d/f é.txt")
    listed = call("trash-list", "--trash-dir", str(home(root) / "Trash"), root=root)
    assert sorted(line.split(" ", 2)[2] for line in listed.splitlines()) == [
        str(root / "d/f é.txt"),
        str(root / "d/g"),
    ]
    shown = call("trash-restore", str(root / "d"), root=root, answer="\n")
    number = next(line.split()[0] for line in shown.splitlines() if line.endswith("f é.txt"))
    call("trash-restore", str(root / "d"), root=root, answer=f"{number}\n")
    assert (root / "d/f é.txt").read_text() == "content"
    [item] = jail.trash.items()
    assert item.path == "d/g"
    tidy(root)


def test_the_jail_lists_and_restores_what_trash_cli_put_there(jail, root):
    jail.write_text("first", "x")
    jail.delete("first")
    (root / "d").mkdir()
    (root / "d/f %.txt").write_text("content")
    call("trash-put", "--trash-dir", str(home(root) / "Trash"), str(root / "d/f %.txt"), root=root)
    item = next(item for item in jail.trash.items() if item.path != "first")
    assert (item.path, item.kind, item.size, item.why, item.actor) == (
        "d/f %.txt",
        "file",
        7,
        "deleted",
        None,
    )
    assert abs(item.deleted_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert jail.trash.recover() == []
    assert jail.trash.restore(item.id) == "d/f %.txt"
    assert (root / "d/f %.txt").read_text() == "content"
    tidy(root)


@pytest.mark.parametrize("ignored", [False, True])
def test_git_clean_leaves_the_trash_alone(ignored, jail, root):
    git = shutil.which("git")
    if git is None:
        pytest.skip("there is no git")
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}

    def run(*arguments: str) -> str:
        return subprocess.run(
            [git, *arguments], cwd=root, check=True, capture_output=True, text=True, env=environment
        ).stdout

    run("init", "-q")
    if ignored:
        (root / ".gitignore").write_text(".fsjail/\n")
    jail.write_text("f", "precious")
    jail.delete("f")
    (root / "junk").write_text("x")
    run("clean", "-fdx")
    assert not (root / "junk").exists()
    assert kept(root) == ["precious"]
    jail.trash.restore(jail.trash.items()[0].id)
    assert (root / "f").read_text() == "precious"


# ── overwriting ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("op", ["write", "append", "edit", "open", "copy", "move"])
def test_overwriting_keeps_the_old_inode(op, jail, root):
    (root / "f").write_text("old")
    (root / "g").write_text("new")
    os.utime(root / "f", (1_000_000_000, 1_000_000_000))
    os.chmod(root / "f", 0o711)
    before = os.stat(root / "f")
    if op == "write":
        jail.write_text("f", "new")
    elif op == "append":
        jail.append_text("f", "new")
    elif op == "edit":
        jail.edit("f", "old", "new")
    elif op == "open":
        with jail.open("f", "w") as file:
            file.write("new")
    else:
        getattr(jail, op)("g", "f", overwrite=True)
    [item] = jail.trash.items()
    after = os.stat(files(root) / item.id)
    assert (after.st_ino, after.st_mtime_ns, after.st_mode) == (
        before.st_ino,
        before.st_mtime_ns,
        before.st_mode,
    )
    assert kept(root) == ["old"]
    tidy(root)
    jail.trash.restore(item.id, overwrite=True)
    assert os.stat(root / "f").st_ino == before.st_ino


def test_what_another_program_puts_there_meanwhile_is_kept_too(jail, root, monkeypatch):
    """Between linking the old inode and the exchange the name is replaced: all three contents live."""
    (root / "f").write_text("old")
    real = jail._store._exchange

    def exchange(*arguments):
        (root / "other").write_text("theirs")
        os.replace(root / "other", root / "f")
        return real(*arguments)

    monkeypatch.setattr(jail._store, "_exchange", exchange)
    jail.write_text("f", "new")
    assert (root / "f").read_text() == "new"
    assert sorted(kept(root)) == ["old", "theirs"]
    assert {item.path for item in jail.trash.items()} == {"f"}
    tidy(root)


def test_a_name_that_vanishes_meanwhile(jail, root, monkeypatch):
    (root / "f").write_text("old")
    real = jail._store._exchange
    done: list[int] = []

    def exchange(*arguments):
        if not done:
            done.append(1)
            (root / "f").unlink()
        return real(*arguments)

    monkeypatch.setattr(jail._store, "_exchange", exchange)
    jail.write_text("f", "new")
    assert (root / "f").read_text() == "new"
    tidy(root)


# ── restore ────────────────────────────────────────────────────────────────────────────────────


def test_restore_never_clobbers(jail, root):
    jail.write_text("f", "one")
    item = jail.delete("f").saved
    assert item is not None
    (root / "f").write_text("two")
    with pytest.raises(FileExistsError):
        jail.trash.restore(item.id)
    assert (root / "f").read_text() == "two"
    assert jail.trash.restore(item.id, to="new/place") == "new/place"
    assert visible(root) == {"f": "two", "new": None, "new/place": "one"}
    assert jail.trash.items() == []


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_restore_overwrite_swaps(kind, jail, root):
    jail.write_text("f", "one")
    item = jail.delete("f").saved
    assert item is not None
    if kind == "file":
        (root / "f").write_text("two")
    elif kind == "directory":
        (root / "f").mkdir()
        (root / "f/x").write_text("two")
    else:
        (root / "f").symlink_to("nowhere")
    assert jail.trash.restore(item.id, overwrite=True) == "f"
    assert (root / "f").read_text() == "one"
    [other] = jail.trash.items()
    assert (other.path, other.kind, other.why) == ("f", kind, "replaced")
    jail.trash.restore(other.id, overwrite=True)
    assert (root / "f").is_symlink() == (kind == "link")
    assert kept(root) == ["one"]
    tidy(root)


def test_restore_of_a_tree_makes_missing_parents(jail, root):
    (root / "a/b/c").mkdir(parents=True)
    (root / "a/b/c/f").write_text("x")
    os.chmod(root / "a/b/c", 0o711)
    item = jail.delete("a/b").saved
    jail.delete("a")
    assert item is not None
    assert jail.trash.restore(item.id) == "a/b"
    assert (root / "a/b/c/f").read_text() == "x"
    assert stat.S_IMODE(os.stat(root / "a/b/c").st_mode) == 0o711


@pytest.mark.parametrize("bad", ["", ".", "..", "no such", "a/b", "../../x", "x\0y", "x" * 300])
def test_an_unknown_id(bad, jail, root):
    for _ in range(2):
        with pytest.raises(TrashError):
            jail.trash.restore(bad)
        jail.write_text("f", "x")
        jail.delete("f")


def test_restore_under_an_appearing_name(jail, root, monkeypatch):
    jail.write_text("f", "one")
    item = jail.delete("f").saved
    assert item is not None
    real = jail._store.give_back

    def give_back(*arguments):
        (root / "f").write_text("theirs")
        return real(*arguments)

    monkeypatch.setattr(jail._store, "give_back", give_back)
    with pytest.raises(FileExistsError):
        jail.trash.restore(item.id)
    assert (root / "f").read_text() == "theirs"
    assert kept(root) == ["one"]


def plant(root: Path, path: str, *, own: str | None = None, name: str = "planted") -> str:
    """Put an item into the trash as an attacker would, who can write there around the jail."""
    (files(root) / name).write_text("EVIL")
    text = f"[Trash Info]\nPath={path}\nDeletionDate=2024-01-01T00:00:00\n"
    (info(root) / f"{name}.trashinfo").write_text(text + (f"X-Fsjail-Path={own}\n" if own else ""))
    return name


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(
    "path",
    ["../outside/new", "/etc/cron.d/x", "{root}/../outside/new", "a/../../outside/new", "out/new", "..", "."],
)
def test_a_planted_info_file_leads_nowhere(path, own, jail, root, base):
    jail.mkdir("d")
    jail.delete("d")
    (root / "out").symlink_to("../outside")
    path = path.replace("{root}", str(root))
    identity = plant(root, path, own=path if own else None)
    before = sorted(os.listdir(base / "outside"))
    for overwrite in (False, True):
        with pytest.raises((OutOfBounds, TrashError, ValueError, FileNotFoundError)):
            jail.trash.restore(identity, overwrite=overwrite)
    assert sorted(os.listdir(base / "outside")) == before
    assert not os.path.exists("/etc/cron.d/x")
    assert (files(root) / identity).exists(), "it is still there for its owner"


@pytest.mark.parametrize(
    "name", [".env", ".git/hooks/pre-commit", ".fsjail/lock", "fsjail.toml", "sub/.git/config"]
)
def test_a_planted_info_file_reaches_no_denied_name(name, jail, root):
    jail.mkdir("d")
    jail.delete("d")
    identity = plant(root, name, own=name)
    for overwrite in (False, True):
        with pytest.raises(PolicyDenied):
            jail.trash.restore(identity, overwrite=overwrite)
    assert visible(root) == {}


def test_a_kept_tree_with_a_denied_name_is_not_restored(jail, root):
    jail.mkdir("d")
    jail.delete("d")
    identity = plant(root, "tree", own="tree")
    (files(root) / identity).unlink()
    (files(root) / identity / "sub").mkdir(parents=True)
    (files(root) / identity / "sub/.envrc").write_text("EVIL")
    with pytest.raises(PolicyDenied) as caught:
        jail.trash.restore(identity)
    assert "tree/sub/.envrc" in str(caught.value)
    assert visible(root) == {}


DAMAGES = [
    None,
    b"",
    b"garbage",
    b"[Trash Info]\n",
    b"[Trash Info]\nPath=/elsewhere/f\n",
    b"\xff\xfe\0",
    b"[Trash Info]\nPath=%00\n",
    "fifo",
    "link",
]


@pytest.mark.parametrize("text", DAMAGES)
def test_a_damaged_item_is_listed_and_can_be_had(text, jail, root):
    jail.write_text("f", "precious")
    item = jail.delete("f").saved
    assert item is not None
    path = info(root) / f"{item.id}.trashinfo"
    path.unlink()
    if text == "fifo":
        os.mkfifo(path)
    elif text == "link":
        path.symlink_to("/etc/passwd")
    elif text is not None:
        path.write_bytes(text)
    [found] = jail.trash.items()
    assert (found.id, found.why, found.path, found.size) == (item.id, "damaged", "", 8)
    with pytest.raises(TrashError, match="to="):
        jail.trash.restore(item.id)
    assert jail.trash.restore(item.id, to="g") == "g"
    assert (root / "g").read_text() == "precious"


@pytest.mark.parametrize(
    "date", ["", "DeletionDate=soon\n", "X-Fsjail-Time=x\n", f"X-Fsjail-Time={10**40}\n"]
)
def test_an_item_without_a_date(date, jail, root):
    jail.mkdir("d")
    jail.delete("d")
    (files(root) / "odd").write_text("x")
    (info(root) / "odd.trashinfo").write_text(f"[Trash Info]\nPath={quote(str(root))}/f\nno equals\n{date}")
    item = next(item for item in jail.trash.items() if item.id == "odd")
    assert item.path == "f"
    assert abs(item.deleted_at - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_relative_path_of_another_program(jail, root):
    jail.mkdir("d")
    jail.delete("d")
    identity = plant(root, "some%20where/f")
    assert jail.trash.restore(identity) == "some where/f"


@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
def test_a_strange_info_file_does_not_stop_the_jail(kind, make, root):
    jail = make()
    jail.mkdir("d")
    jail.delete("d")
    jail.close()
    strange = info(root) / "strange.trashinfo"
    if kind == "fifo":
        os.mkfifo(strange)
    elif kind == "link":
        strange.symlink_to("/etc/passwd")
    else:
        strange.mkdir()
    jail = make()
    jail.write_text("f", "1")
    jail.write_text("f", "2")
    assert kept(root) == ["1"]


# ── purge ──────────────────────────────────────────────────────────────────────────────────────


def aged(jail: Jail, root: Path, name: str, days: float, size: int) -> str:
    jail.write_text(name, "x" * size)
    item = jail.delete(name).saved
    assert item is not None
    path = info(root) / f"{item.id}.trashinfo"
    stamp = time.time_ns() - int(days * 86400 * 10**9)
    lines = [f"X-Fsjail-Time={stamp}" if "Time" in line else line for line in path.read_text().split("\n")]
    path.write_text("\n".join(lines))
    return item.id


def test_purge_by_age_and_size(jail, root):
    for name, days, size in (("a", 10, 5), ("b", 5, 50), ("c", 1, 7)):
        aged(jail, root, name, days, size)
    assert jail.trash.purge() == []
    assert [item.path for item in jail.trash.purge(older_than_days=7, dry_run=True)] == ["a"]
    assert len(jail.trash.items()) == 3
    assert [item.path for item in jail.trash.purge(older_than_days=7)] == ["a"]
    assert [item.path for item in jail.trash.purge(keep_bytes=20)] == ["b"]
    assert [item.path for item in jail.trash.items()] == ["c"]
    assert [item.path for item in jail.trash.purge(older_than_days=0)] == ["c"]
    assert jail.trash.items() == []
    tidy(root)
    assert [event.op for event in jail.audit.events()].count("purge") == 3


def test_purge_of_trees_and_links(jail, root, base):
    (root / "d/e").mkdir(parents=True)
    (root / "d/e/f").write_text("x")
    (root / "d/out").symlink_to("../../outside")
    os.mkfifo(root / "d/p")
    jail.delete("d")
    (root / "l").symlink_to("../outside/dir")
    jail.delete("l")
    assert len(jail.trash.purge(older_than_days=0)) == 2
    assert (base / "outside/secret").read_text() == "SECRET"
    assert (base / "outside/dir").exists()
    tidy(root)


def test_purge_of_a_damaged_item(jail, root):
    jail.write_text("f", "x")
    item = jail.delete("f").saved
    assert item is not None
    (info(root) / f"{item.id}.trashinfo").unlink()
    assert [gone.id for gone in jail.trash.purge(older_than_days=0)] == [item.id]
    tidy(root)


@pytest.fixture
def read_only_tree(root, tmp_path):
    """As a module cache has them: read-only directories, owned by us and not by the superuser."""
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent, root.parent):
        os.chmod(folder, 0o755)
    state = tmp_path / "state"
    state.mkdir()
    os.chmod(state, 0o777)
    os.chmod(root, 0o777)

    def work():
        drop_to_nobody()
        (root / "d/e").mkdir(parents=True)
        (root / "d/e/f").write_text("x")
        os.chmod(root / "d/e", 0o555)
        failed = False
        with Jail(root, OPEN, state=state) as jail:
            jail.delete("d")
            try:
                jail.trash.purge(older_than_days=0)
            except OSError:
                failed = True
            listed = len(jail.trash.items())
        with Jail(root, OPEN, state=state) as jail:
            jail.write_text("f", "1")
            jail.write_text("f", "2")
            return failed, listed, os.listdir(home(root) / "stage")

    return work


def test_a_tree_that_forbids_its_removal_does_not_stop_the_jail(read_only_tree):
    assert in_child(read_only_tree)


def test_a_tree_that_forbids_its_removal_is_purged_or_stays_listed(read_only_tree):
    failed, listed, left = in_child(read_only_tree)
    assert (failed, listed, left) in ((False, 0, []), (True, 1, []))


# ── crashes ────────────────────────────────────────────────────────────────────────────────────

STEPS = ("link", "rename", "unlink", "mkdir", "rmdir", "symlink", "write", "copy_file_range", "utime")
PACKAGE_STEPS = ("renameat2",)


def crash_after(number: int) -> None:
    """End this process, as a power cut would, at the given step that changes the disk."""
    left = [number]

    def counted(real):
        def step(*args, **kwargs):
            if left[0] == 0:
                os._exit(9)
            left[0] -= 1
            return real(*args, **kwargs)

        return step

    for name in STEPS:
        if hasattr(os, name):
            setattr(os, name, counted(getattr(os, name)))
    plain = os.open

    def opened(path, flags, *args, **kwargs):
        if flags & os.O_CREAT and not isinstance(path, int) and str(path) != "lock":
            if left[0] == 0:
                os._exit(9)
            left[0] -= 1
        return plain(path, flags, *args, **kwargs)

    os.open = opened
    for key, module in list(sys.modules.items()):
        if key.startswith("fsjail."):
            for name in PACKAGE_STEPS:
                if name in vars(module):
                    setattr(module, name, counted(getattr(module, name)))


def lesser(machine: str) -> None:
    """Take from this process what lesser machines do not have."""

    def refused(code):
        def call_(*_args, **_kwargs):
            raise OSError(code, os.strerror(code))

        return call_

    for key, module in list(sys.modules.items()):
        if not key.startswith("fsjail."):
            continue
        if machine in {"no exchange", "nothing"} and "renameat2" in vars(module):
            module.renameat2 = refused(errno.ENOSYS)
        if machine in {"no tmpfile", "nothing"} and "_O_TMPFILE" in vars(module):
            module._O_TMPFILE = 0
    if machine == "no links":
        real = os.link
        os.link = lambda src, *a, **k: real(src, *a, **k) if "/proc/" in str(src) else refused(errno.EPERM)()


OPERATIONS = {
    "write": lambda jail: jail.write_text("f", "NEW"),
    "create": lambda jail: jail.write_text("n", "NEW"),
    "append": lambda jail: jail.append_text("f", "NEW"),
    "edit": lambda jail: jail.edit("f", "old", "NEW"),
    "delete": lambda jail: jail.delete("f"),
    "delete tree": lambda jail: jail.delete("d"),
    "move": lambda jail: jail.move("f", "n"),
    "move onto": lambda jail: jail.move("g", "f", overwrite=True),
    "move tree onto": lambda jail: jail.move("d", "e", overwrite=True),
    "copy onto": lambda jail: jail.copy("g", "f", overwrite=True),
    "copy tree": lambda jail: jail.copy("d", "n"),
    "restore": lambda jail: jail.trash.restore(jail.trash.items()[0].id),
    "restore swap": lambda jail: jail.trash.restore(jail.trash.items()[0].id, to="f", overwrite=True),
    "purge": lambda jail: jail.trash.purge(older_than_days=0),
}


@pytest.mark.parametrize("machine", ["whole", "no tmpfile", "no exchange", "no links", "nothing"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_crash_at_any_step_loses_nothing(name, machine, tmp_path):
    """Ended at each step in turn; the next jail brings all in order, and every content is somewhere."""
    for step in range(200):
        root = tmp_path / str(step)
        (root / "d").mkdir(parents=True)
        (root / "e").mkdir()
        for path, text in (
            ("f", "old"),
            ("g", "other"),
            ("d/x", "in d"),
            ("e/y", "in e"),
            ("trashed", "kept"),
        ):
            (root / path).write_text(text)
        with Jail(root, OPEN, state=root.parent / f"s{step}", durability="none") as jail:
            jail.delete("trashed")
        pid = os.fork()
        if pid == 0:
            code = 1
            with suppress(BaseException):
                lesser(machine)
                with Jail(root, OPEN, state=root.parent / f"t{step}", durability="none") as jail:
                    crash_after(step)
                    OPERATIONS[name](jail)
                code = 0
            os._exit(code)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        assert code in {0, 9}, f"the operation failed at step {step}"
        with Jail(root, OPEN, state=root.parent / f"u{step}", durability="none") as jail:
            jail.trash.recover()
            # `lock` is a name of the trash's own; everything else there is a content.
            everywhere = [
                path.read_text() for path in root.rglob("*") if path.is_file() and ".git" not in path.parts
            ]
            wanted = {"old", "other", "in d", "in e", "kept"} - ({"kept"} if name == "purge" else set())
            where = f"after step {step}"
            assert wanted <= set(everywhere), f"lost {where}"
            tidy(root, empty_claims=True)  # those have a test of their own, below
            for path in ("f", "g", "d/x", "e/y"):
                text = (root / path).read_text() if (root / path).exists() else None
                assert text != "", f"{path} is empty {where}"
                if text is None:
                    touched = {"delete": "f", "delete tree": "d/x", "move": "f", "move onto": "gf"}
                    touched |= {"move tree onto": "d/x e/y", "write": "", "restore swap": "f"}
                    assert path in touched.get(name, ""), f"{path} is gone {where}"
            assert all(item.why != "damaged" for item in jail.trash.items()), where
            # Each content once: at its name or in the trash, never twice because of the crash.
            if name in {"write", "append", "edit", "delete", "move onto", "copy onto", "restore swap"}:
                assert everywhere.count("old") == 1, f"kept twice {where}"
        shutil.rmtree(root)
        if code == 0:
            assert step > 1
            return
    pytest.fail("it never came to its end")


@pytest.mark.parametrize("text", [b"", b"[Trash Info]\nPa"])
def test_a_claim_that_was_not_written_whole_is_removed(text, make, root):
    """The crash came between creating and writing the info file; nothing was moved yet."""
    jail = make()
    jail.write_text("f", "x")
    item = jail.delete("f").saved
    assert item is not None
    claim = info(root) / f"{item.id[:-8]}00000000.trashinfo"
    claim.write_bytes(text)
    jail.close()
    os.utime(claim, (1_000_000_000, 1_000_000_000))  # long ago: no other program is at it right now
    make().trash.recover()
    assert not claim.exists()
    tidy(root)


def test_states_that_only_hands_can_make(make, root):
    jail = make()
    jail.write_text("f", "old")
    item = jail.delete("f").saved
    assert item is not None
    text = (info(root) / f"{item.id}.trashinfo").read_text()
    jail.close()
    stage = home(root) / "stage"
    # A purge that did not come to its end.
    (stage / "purge-1").mkdir()
    (stage / "purge-1/x").write_text("x")
    (stage / "purge-2").write_text("x")
    # Unfinished content of a file and of a tree.
    (stage / "new-1").write_text("x")
    (stage / "new-2/sub").mkdir(parents=True)
    # A claim for nothing, one of another program, and the info of something that is gone.
    (info(root) / "claim.trashinfo").write_text(text)
    (info(root) / "foreign.trashinfo").write_text("[Trash Info]\nPath=/x\nDeletionDate=2024-01-01T00:00:00\n")
    (info(root) / "note.txt").write_text("not ours")
    # Exchanged, and another program's content caught: the old one is linked already.
    (info(root) / "both.trashinfo").write_text(text)
    (files(root) / "both").write_text("old content")
    (stage / "both").write_text("caught content")
    # Exchanged, the old content still in the stage.
    (info(root) / "late.trashinfo").write_text(text)
    (stage / "late").write_text("late content")
    # Exchanged and linked: two names of one inode.
    (info(root) / "twice.trashinfo").write_text(text)
    (files(root) / "twice").write_text("twice content")
    os.link(files(root) / "twice", stage / "twice")
    # Linked, not exchanged: still live at its name.
    (root / "f").write_text("live")
    (info(root) / "undone.trashinfo").write_text(text)
    os.link(root / "f", files(root) / "undone")
    (stage / "undone.mark").write_text("")

    jail = make(state=root.parent / "s2")
    items = {entry.id for entry in jail.trash.items()}
    contents = sorted(kept(root))
    assert contents == ["caught content", "late content", "old", "old content", "twice content"]
    assert "undone" not in items
    assert (root / "f").read_text() == "live"
    assert os.listdir(stage) == []
    # Nobody sees it; looked for when something is kept.
    assert (info(root) / "claim.trashinfo").exists()
    items.add(str(jail.write_text("f", "live again").saved.id))
    assert sorted(set(os.listdir(info(root))) - {f"{name}.trashinfo" for name in items}) == [
        "foreign.trashinfo",
        "note.txt",
    ]
    assert jail.trash.recover() == []


def test_recovery_waits_for_who_is_alive(make, root):
    """A second jail, or a listing of its trash, must not take a copy that is being made for debris."""
    (root / "s/d").mkdir(parents=True)
    for name in "abcefg":
        (root / "s" / name).write_text(name)
        (root / "s/d" / name).write_text(name)
    jail = make()
    jail.mkdir("x")
    jail.delete("x")
    real = jail._judge.tree
    calls: list[int] = []

    def tree(*args, **kwargs):
        calls.append(1)
        if len(calls) == 6:
            other = make(state=root.parent / "s2")
            worker = threading.Thread(target=other.trash.recover, daemon=True)  # it may have to wait
            worker.start()
            worker.join(0.3)
        return real(*args, **kwargs)

    jail._judge.tree = tree
    jail.copy("s", "t")
    copied = {str(path.relative_to(root / "t")) for path in (root / "t").rglob("*")}
    assert copied == {str(path.relative_to(root / "s")) for path in (root / "s").rglob("*")}


def test_recovery_leaves_staged_content_of_others_alone(make, root, monkeypatch):
    monkeypatch.setattr("fsjail._stage._O_TMPFILE", 0)
    jail = make()
    jail.mkdir("x")
    jail.delete("x")
    with jail.open("n", "w") as file:
        file.write("content")
        file.flush()
        make(state=root.parent / "s2").trash.recover()
    assert (root / "n").read_text() == "content"


@pytest.mark.parametrize("folder", ["", "d", "gone", "link"])
def test_what_a_crash_left_beside_a_name_is_removed(folder, make, root, base):
    jail = make()
    jail.mkdir("d")
    jail.mkdir("x")
    jail.delete("x")
    jail.close()
    (root / "link").symlink_to("../outside")
    token = "0" * 24
    (home(root) / "stage" / f"{token}.beside").write_text(folder)
    for place in (root, root / "d", base / "outside"):
        (place / f".fsjail-{token}").mkdir()
        (place / f".fsjail-{token}" / "x").write_text("half")
    make().trash.recover()
    left = [place for place in (root, root / "d") if (place / f".fsjail-{token}").exists()]
    assert left == {"": [root / "d"], "d": [root]}.get(folder, [root, root / "d"])
    assert (base / "outside" / f".fsjail-{token}" / "x").exists()
    tidy(root)


def test_a_folder_that_lacks_a_part(make, root):
    jail = make()
    jail.mkdir("x")
    jail.delete("x")
    jail.close()
    os.rmdir(home(root) / "stage")
    jail = make()
    assert [item.path for item in jail.trash.items()] == ["x"], "what is kept is listed all the same"
    jail.write_text("f", "1")
    jail.write_text("f", "2")
    assert len(jail.trash.items()) == 2


def test_what_might_not_be_read_comes_back_under_no_other_name(jail, root):
    jail.mkdir("d")
    jail.delete("d")
    for name, own in (("a", ".env"), ("c", "sub/.env")):
        plant(root, own, own=own, name=name)
        with pytest.raises((PolicyDenied, OutOfBounds)):
            jail.trash.restore(name, to="plain.txt")
    assert visible(root) == {}


def test_a_damaged_tree_can_be_had(jail, root):
    (root / "d").mkdir()
    (root / "d/f").write_text("x")
    item = jail.delete("d").saved
    assert item is not None
    (info(root) / f"{item.id}.trashinfo").unlink()
    assert jail.trash.restore(item.id, to="e") == "e"
    assert visible(root) == {"e": None, "e/f": "x"}


# ── crowds ─────────────────────────────────────────────────────────────────────────────────────


def work_on(jail: Jail, who: str, rounds: int) -> None:
    for number in range(rounds):
        name = f"{who}/f"
        jail.write_text(name, f"{who} {number} a", parents=True)
        jail.write_text(name, f"{who} {number} b")
        jail.delete(name)
        with suppress(OSError):
            jail.write_text("shared", f"{who} {number} s")


def assert_nothing_lost(root: Path, who: list[str], rounds: int) -> None:
    texts = kept(root)
    shared = [(root / "shared").read_text()] if (root / "shared").exists() else []
    for name in who:
        for number in range(rounds):
            for letter in "ab":
                assert texts.count(f"{name} {number} {letter}") == 1
            # Two who replace one file at once may both have kept what was there before; no less.
            assert f"{name} {number} s" in texts + shared
    tidy(root)


def test_threads_on_one_jail(jail, root):
    who, rounds = [f"t{number}" for number in range(4)], 12
    failures: list[BaseException] = []

    def run(name: str) -> None:
        try:
            work_on(jail, name, rounds)
        except BaseException as error:  # noqa: BLE001 - shown below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(name,)) for name in who]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert_nothing_lost(root, who, rounds)


def test_processes_on_one_root(root, tmp_path):
    who, rounds = [f"p{number}" for number in range(4)], 12
    pids = []
    for name in who:
        pid = os.fork()
        if pid == 0:
            code = 1
            with suppress(BaseException), Jail(root, OPEN, state=tmp_path / "state", actor=name) as jail:
                work_on(jail, name, rounds)
                code = 0
            os._exit(code)
        pids.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0, 0, 0, 0]
    assert_nothing_lost(root, who, rounds)
    with Jail(root, OPEN, state=tmp_path / "state") as jail:
        assert jail.audit.verify()
        assert {item.actor for item in jail.trash.items()} >= set(who)


def test_the_same_file_deleted_by_all(root, tmp_path):
    for number in range(30):
        (root / f"f{number}").write_text(str(number))
    pids = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            with suppress(BaseException), Jail(root, OPEN, state=tmp_path / "state") as jail:
                for number in range(30):
                    with suppress(FileNotFoundError):
                        jail.delete(f"f{number}")
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    assert sorted(kept(root), key=int) == [str(number) for number in range(30)]
    tidy(root)


# ── somewhere else ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("where", ["same", "other"])
def test_a_trash_somewhere_else(where, make, root, tmp_path):
    place = tmp_path / "my trash"
    if where == "other":
        place = Path(f"/dev/shm/fsjail-test-{os.getpid()}")
        if not os.access("/dev/shm", os.W_OK) or os.stat("/dev/shm").st_dev == os.stat(root).st_dev:
            pytest.skip("there is no other file system to write to")
    try:
        assert make(trash_location=place).trash.items() == []
        jail = make(trash_location=place)
        (root / "d").mkdir()
        (root / "d/f").write_text("1")
        jail.write_text("f", "1")
        jail.write_text("f", "2")
        jail.delete("d")
        jail.delete("f")
        assert not home(root).exists()
        assert sorted(item.path for item in jail.trash.items()) == ["d", "f", "f"]
        for item in jail.trash.items()[:2]:
            jail.trash.restore(item.id)
        assert visible(root) == {"d": None, "d/f": "1", "f": "2"}
        jail.undo()
        jail.close()
        assert make(trash_location=place).trash.items()
    finally:
        shutil.rmtree(place, ignore_errors=True)


def test_limits_do_not_hold_for_the_trash(make, root):
    jail = make(limits=Limits(max_total_bytes=10))
    (root / "big").write_text("x" * 1000)
    jail.trash.restore(jail.delete("big").saved.id)  # type: ignore[union-attr]
    assert (root / "big").stat().st_size == 1000


def test_the_short_way_of_reading_an_info_file_says_what_the_long_way_says():
    """What is read quickly is read alike, and whatever is unusual is left to the one that knows it all."""
    when = datetime.fromtimestamp(1_700_000_000.5, UTC)
    usual = 0
    for path in (
        "a",
        "src/b c.py",
        "a..b",
        "../a",
        "x/../y",
        "new\nline",
        "cr\rhere",
        "50%",
        "\udcff",
        "é",
        "Size=",
    ):
        for why in ("deleted", "appended to", "Odd?"):
            for actor in (None, "agent-7", "a b\n", ""):
                item = TrashItem("id", path, when, why, actor, 17, "file")
                text = make_info(item, "/srv/root", 1_700_000_000_500_000_000, None)
                for planted in (
                    text,
                    text.replace(b"X-Fsjail-Size=17", b"X-Fsjail-Size=" + b"9" * 5000),
                    text.replace(b"X-Fsjail-Time=17", b"X-Fsjail-Time=9999999999"),
                    text.replace(b"X-Fsjail-Path=", b"X-Fsjail-Path=/"),
                    text.replace(b"[Trash Info]", b"[Trash]"),
                    text + b"X-Fsjail-Why=edited\n",
                    text[:-1],
                ):
                    quick = parse_usual(planted, "id")
                    if quick is not None:
                        usual += 1
                        assert quick == parse_info(planted, "id", "file", 17, 0.0, "/srv/root")
    assert usual > 20


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[Trash Info]\n",
        b"\0" * 100,
        b"[Trash Info]\nX-Fsjail-Path=a\nX-Fsjail-Size=" + b"9" * 9000 + b"\n",
        (
            b"[Trash Info]\nPath=/etc/passwd\nDeletionDate=2026-01-01T00:00:00\n"
            b"X-Fsjail-Path=../../etc/passwd\nX-Fsjail-Time=1\nX-Fsjail-Why=deleted\nX-Fsjail-Size=1\n"
        ),
        (
            b"[Trash Info]\nPath=/x\nDeletionDate=x\nX-Fsjail-Path=\xff\nX-Fsjail-Time=8999999999999999999\n"
            b"X-Fsjail-Why=deleted\nX-Fsjail-Actor=\xff\nX-Fsjail-Size=1\n"
        ),
    ],
    ids=["empty", "bare", "zeros", "endless size", "climbs", "far future"],
)
def test_a_planted_info_file_is_listed_and_never_breaks_the_list(jail, root, text):
    (root / "a").write_text("kept")
    kept = jail.delete("a").saved
    (root / f".fsjail/Trash/info/{kept.id}.trashinfo").write_bytes(text)
    [item] = jail.trash.items()
    assert item.id == kept.id
    assert not item.path.startswith("..")
