"""Corners that a machine rarely reaches: each race, fault and odd file system is made here on purpose."""

from __future__ import annotations

import ctypes
import errno
import io
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fsjail import (
    Jail,
    Limits,
    OutOfBounds,
    Policy,
    PolicyDenied,
    Rules,
    TrashError,
    _across,
    _copying,
    _crash,
    _stage,
    _syscalls,
    _trash,
)
from fsjail._errors import LimitExceeded, Moved
from fsjail._stage import Staged
from fsjail._trash import Reason
from fsjail.tools import MAX_CHARACTERS, file_tools

OPEN = Policy(write=Rules(allow=["*"]))


@pytest.fixture
def root(base) -> Path:
    return base / "root"


@pytest.fixture
def make(root, tmp_path):
    made: list[Jail] = []

    def make_jail(policy: Policy = OPEN, **options: Any) -> Jail:
        options.setdefault("state", tmp_path / "state")
        made.append(Jail(root, policy, **options))
        return made[-1]

    yield make_jail
    for each in made:
        each.close()


@pytest.fixture
def jail(make) -> Jail:
    return make()


def fault(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def fails(number: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise fault(number)

    return fail


def once(before: Callable[[], object], real: Callable[..., Any]) -> Callable[..., Any]:
    """The real call, and somebody else who is a moment faster the first time."""
    done: list[int] = []

    def call(*arguments: Any, **options: Any) -> Any:
        if not done:
            done.append(1)
            before()
        return real(*arguments, **options)

    return call


def refuse() -> None:
    raise fault(errno.ENOSPC)


def swap(path: Path, text: str) -> None:
    """Another program's atomic write."""
    path.with_name("theirs").write_text(text)
    path.with_name("theirs").replace(path)


def kept(root: Path) -> list[str]:
    return sorted(path.read_text() for path in (root / ".fsjail/Trash/files").rglob("*") if path.is_file())


def tidy(root: Path) -> None:
    """Nothing on its way, one info file for each thing that is kept, nothing beside a name."""
    home = root / ".fsjail"
    assert os.listdir(home / "stage") == []
    infos = {name.removesuffix(".trashinfo") for name in os.listdir(home / "Trash/info")}
    assert infos == set(os.listdir(home / "Trash/files"))
    assert not list(root.rglob(".fsjail-*"))


# ── across file systems, without one ───────────────────────────────────────────────────────────


@pytest.fixture(params=["tmpfile", "no tmpfile"])
def border(request, root, monkeypatch) -> None:
    """What lies below ``mnt`` answers as another file system does: EXDEV for every rename and link."""
    (root / "mnt").mkdir()
    inside = f"{root / 'mnt'}/"
    if request.param == "no tmpfile":
        monkeypatch.setattr(_stage, "_O_TMPFILE", 0)

    def beyond(path: str, folder: int | None) -> bool:
        if folder is not None:
            path = os.readlink(f"/proc/self/fd/{folder}") + "/"
        elif path.startswith("/proc/self/fd/"):
            path = os.readlink(path)
        return path.startswith(inside)

    real, link, rename = _syscalls.renameat2, os.link, os.rename

    def renameat2(src_fd: int, src: str, dst_fd: int, dst: str, flags: int) -> None:
        if beyond(src, src_fd) != beyond(dst, dst_fd):
            raise fault(errno.EXDEV)
        real(src_fd, src, dst_fd, dst, flags)

    def walled(call: Callable[..., None]) -> Callable[..., None]:
        def walled_call(src: str, dst: str, **options: Any) -> None:
            if beyond(src, options.get("src_dir_fd")) != beyond(dst, options.get("dst_dir_fd")):
                raise fault(errno.EXDEV)
            call(src, dst, **options)

        return walled_call

    for module in (_stage, _trash, _across):
        monkeypatch.setattr(module, "renameat2", renameat2)
    monkeypatch.setattr(os, "link", walled(link))
    monkeypatch.setattr(os, "rename", walled(rename))


def test_the_border_is_one(border, jail, root):
    """The fixture works: what has to cross is copied, so it gets another inode."""
    (root / "mnt/f").write_text("x")
    (root / "f").write_text("x")
    before = (root / "mnt/f").stat().st_ino, (root / "f").stat().st_ino
    jail.move("mnt/f", "mnt/g")
    jail.move("f", "mnt/h")
    assert (root / "mnt/g").stat().st_ino == before[0]
    assert (root / "mnt/h").stat().st_ino != before[1]


@pytest.mark.parametrize("durability", ["full", "none"])
@pytest.mark.parametrize(("source", "target"), [("mnt/a", "b"), ("a", "mnt/b")])
def test_every_change_crosses(source, target, durability, border, make, root):
    jail = make(durability=durability)
    jail.write_text(source, "one")
    saved = jail.write_text(source, "two").saved
    assert jail.trash.restore(saved.id, overwrite=True) == source
    assert jail.read_text(source) == "one"
    assert kept(root) == ["two"]
    jail.write_text(target, "old")
    saved = jail.move(source, target, overwrite=True).saved
    assert not (root / source).exists()
    assert jail.read_text(target) == "one"
    assert jail.trash.restore(saved.id, to="back") == "back"
    assert jail.read_text("back") == "old"
    jail.delete(target)
    jail.undo()
    assert jail.read_text(target) == "one"
    jail.mkdir(f"{source}d")
    jail.copy(target, f"{source}d/f")
    jail.copy(f"{source}d", f"{target}d")
    jail.move(f"{source}d", f"{target}d/in")
    assert jail.read_text(f"{target}d/in/f") == jail.read_text(f"{target}d/f") == "one"
    assert not (root / f"{source}d").exists()
    tidy(root)


@pytest.mark.parametrize("step", ["_copy_old", "_beside", "_give_back_across"])
def test_a_swap_that_fails_halfway_changes_nothing(step, border, jail, root, monkeypatch):
    jail.write_text("mnt/f", "one")
    saved = jail.write_text("mnt/f", "two").saved
    monkeypatch.setattr(jail._store, step, once(refuse, getattr(jail._store, step)))
    with pytest.raises(OSError, match="No space left"):
        jail.trash.restore(saved.id, overwrite=True)
    assert (root / "mnt/f").read_text() == "two"
    assert [item.id for item in jail.trash.items()] == [saved.id]
    assert kept(root) == ["one"]
    tidy(root)


@pytest.mark.parametrize(("source", "target"), [("mnt/a", "b"), ("a", "mnt/b")])
def test_a_move_onto_that_fails_halfway_changes_nothing(source, target, border, jail, root, monkeypatch):
    jail.write_text(source, "new")
    jail.write_text(target, "old")
    monkeypatch.setattr(jail._store, "_move_across", once(refuse, jail._store._move_across))
    with pytest.raises(OSError, match="No space left"):
        jail.move(source, target, overwrite=True)
    assert (root / source).read_text() == "new"
    assert (root / target).read_text() == "old"
    assert jail.trash.items() == []
    tidy(root)


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_move_whose_original_stays_says_so(kind, border, jail, root, monkeypatch):
    if kind == "file":
        jail.write_text("mnt/a", "x")
    else:
        jail.mkdir("mnt/a")
    real = _copying.remove_entry

    def stuck(folder: int, name: str, **options: bool) -> None:
        if name == "a":
            raise fault(errno.EACCES)
        real(folder, name, **options)

    monkeypatch.setattr(_across, "remove_entry", stuck)
    with pytest.raises(TrashError, match="original could not be removed wholly: Permission denied"):
        jail.move("mnt/a", "b")
    assert (root / "mnt/a").exists()
    assert (root / "b").exists()
    assert not list(root.rglob(".fsjail-*"))


def test_a_tree_crosses_with_all_that_is_in_it(border, jail, root):
    tree = root / "mnt/d"
    tree.mkdir()
    (tree / "f").write_text("x")
    (tree / "l").symlink_to("f")
    os.mkfifo(tree / "p")
    with (tree / "sparse").open("wb") as file:
        file.truncate(4 << 20)
    change = jail.delete("mnt/d")
    assert not tree.exists()
    tidy(root)
    jail.undo(change)
    assert (tree / "f").read_text() == "x"
    assert os.readlink(tree / "l") == "f"
    assert stat.S_ISFIFO((tree / "p").stat().st_mode)
    assert (tree / "sparse").stat().st_size == 4 << 20
    assert (tree / "sparse").stat().st_blocks == 0


def test_a_delete_whose_original_stays_keeps_both(border, jail, root, monkeypatch):
    jail.write_text("mnt/a", "x")
    real = _copying.remove_entry

    def stuck(folder: int, name: str, **options: bool) -> None:
        if name == "a":
            raise fault(errno.EACCES)
        real(folder, name, **options)

    monkeypatch.setattr(_across, "remove_entry", stuck)
    with pytest.raises(TrashError, match="could not be removed wholly: Permission denied") as caught:
        jail.delete("mnt/a")
    [item] = jail.trash.items()
    assert item.path == "mnt/a"
    assert item.id in str(caught.value)
    assert (root / "mnt/a").read_text() == "x"
    assert kept(root) == ["x"]
    tidy(root)


def test_what_is_written_while_it_is_copied_is_judged_anew(border, jail, root, monkeypatch):
    jail.write_text("mnt/f", "old")
    real = _copying.copy_entry
    done: list[int] = []

    def meddle(*arguments: Any) -> int:
        size = real(*arguments)
        if not done:
            done.append(1)
            (root / "mnt/f").write_text("theirs")
        return size

    monkeypatch.setattr(_across, "copy_entry", meddle)
    jail.delete("mnt/f")
    assert kept(root) == ["theirs"]
    tidy(root)


def test_what_vanishes_while_it_is_copied_is_told(border, jail, root, monkeypatch):
    jail.write_text("mnt/f", "x")
    real = _copying.copy_entry

    def vanish(*arguments: Any) -> int:
        done = real(*arguments)
        (root / "mnt/f").unlink()
        return done

    monkeypatch.setattr(_across, "copy_entry", vanish)
    with pytest.raises(FileNotFoundError):
        jail.delete("mnt/f")
    assert jail.trash.items() == []
    jail.write_text("x", "x")
    tidy(root)


def test_no_room_for_the_new_content_beside_keeps_the_old(border, jail, root, monkeypatch):
    jail.write_text("mnt/f", "old")
    real = Staged.name_as

    def full(staged: Staged, folder: int, name: str) -> None:
        if name.startswith(".fsjail-"):
            raise fault(errno.ENOSPC)
        real(staged, folder, name)

    monkeypatch.setattr(Staged, "name_as", full)
    with pytest.raises(OSError, match="No space left"):
        jail.write_text("mnt/f", "new")
    assert (root / "mnt/f").read_text() == "old"
    assert not list(root.rglob(".fsjail-*"))
    assert os.listdir(root / ".fsjail/stage") == []


def test_what_another_program_puts_there_while_it_crosses_is_kept_too(border, jail, root, monkeypatch):
    jail.write_text("mnt/f", "old")
    monkeypatch.setattr(_across, "renameat2", once(lambda: swap(root / "mnt/f", "theirs"), _across.renameat2))
    jail.write_text("mnt/f", "new")
    assert (root / "mnt/f").read_text() == "new"
    assert kept(root) == ["old", "theirs"]
    assert [item.path for item in jail.trash.items()] == ["mnt/f", "mnt/f"]
    tidy(root)


def test_a_tree_is_not_copied_onto_what_appears_meanwhile(jail, root, monkeypatch):
    jail.mkdir("d")
    jail.write_text("d/f", "x")
    monkeypatch.setattr(
        _across, "rename_new", once(lambda: (root / "e").write_text("theirs"), _stage.rename_new)
    )
    with pytest.raises(FileExistsError):
        jail.copy("d", "e")
    assert (root / "e").read_text() == "theirs"
    assert os.listdir(root / ".fsjail/stage") == []


# ── the trash: others at the same name ─────────────────────────────────────────────────────────


def test_without_links_a_failed_move_onto_puts_the_old_back(jail, root, monkeypatch):
    (root / "a").write_text("new")
    (root / "b").write_text("old")
    real = os.rename

    def stuck(src: str, dst: str, **options: Any) -> None:
        if src == "a":
            raise fault(errno.ENOSPC)
        real(src, dst, **options)

    monkeypatch.setattr(os, "link", fails(errno.EPERM))
    monkeypatch.setattr(os, "rename", stuck)
    with pytest.raises(OSError, match="No space left"):
        jail.move("a", "b", overwrite=True)
    assert (root / "a").read_text() == "new"
    assert (root / "b").read_text() == "old"
    assert jail.trash.items() == []
    tidy(root)


@pytest.mark.parametrize("op", ["move", "delete"])
def test_the_name_is_swapped_and_taken_again(op, jail, root, monkeypatch):
    """What was moved by mistake cannot go back, because its name is taken: it is kept, and told."""
    (root / "f").write_text("judged")
    real = _stage.renameat2
    calls: list[str] = []

    def crowded(src_fd: int, src: str, dst_fd: int, dst: str, flags: int) -> None:
        calls.append(dst)
        if len(calls) == 1:
            swap(root / "f", "theirs")
        real(src_fd, src, dst_fd, dst, flags)
        if len(calls) == 1:
            (root / "f").write_text("third")

    monkeypatch.setattr(_stage, "renameat2", crowded)
    with pytest.raises(TrashError, match="something else took the name") as caught:
        if op == "delete":
            jail.delete("f")
        else:
            jail.move("f", "g")
    assert calls[0] in str(caught.value)
    assert (root / "f").read_text() == "third"
    if op == "move":
        assert (root / "g").read_text() == "theirs"
    else:
        assert kept(root) == ["theirs"]
        assert [(item.id, item.path) for item in jail.trash.items()] == [(calls[0], "f")]


def test_a_name_that_goes_before_it_is_linked(jail, root, monkeypatch):
    (root / "f").write_text("old")
    monkeypatch.setattr(jail._store, "_link_old", once((root / "f").unlink, jail._store._link_old))
    assert jail.write_text("f", "new").saved is None
    assert (root / "f").read_text() == "new"
    assert jail.trash.items() == []
    tidy(root)


def test_two_jails_replace_one_file(make, root, monkeypatch):
    """The second comes between link and exchange of the first: no content is lost or kept twice."""
    first, second = make(), make()
    (root / "f").write_text("old")
    monkeypatch.setattr(
        first._store, "_exchange", once(lambda: second.write_text("f", "second"), first._store._exchange)
    )
    first.write_text("f", "first")
    assert (root / "f").read_text() == "first"
    assert kept(root) == ["old", "second"]
    tidy(root)


def test_a_restore_over_a_name_that_is_swapped_meanwhile(jail, root, monkeypatch):
    """What came between judging and exchanging goes back first, and is judged anew."""
    jail.write_text("f", "one")
    saved = jail.write_text("f", "two").saved
    monkeypatch.setattr(_trash, "renameat2", once(lambda: swap(root / "f", "theirs"), _trash.renameat2))
    jail.trash.restore(saved.id, overwrite=True)
    assert (root / "f").read_text() == "one"
    assert kept(root) == ["theirs"]
    tidy(root)


@pytest.mark.parametrize("place", ["../outside", "..", "d/../../outside", "./d", "d//e"])
def test_a_planted_mark_leads_nowhere(place, jail, root, base):
    """Recovery removes what a mark names: the mark must not lead out of the root."""
    jail.delete(jail.write_text("f", "x").path)
    (root / "d").mkdir()
    (base / "outside/.fsjail-0123456789abcdef01234567").write_text("theirs")
    (base / ".fsjail-0123456789abcdef01234567").write_text("theirs")
    (root / ".fsjail/stage/0123456789abcdef01234567.beside").write_text(place)
    jail.trash.recover()
    assert (base / "outside/.fsjail-0123456789abcdef01234567").read_text() == "theirs"
    assert (base / ".fsjail-0123456789abcdef01234567").read_text() == "theirs"
    tidy(root)


def test_check_of_a_name_that_keeps_changing(jail, root, monkeypatch):
    """It ends, and the names decide."""
    (root / "f").write_text("x")
    asked: list[int] = []

    def moved(*_: object, **__: object) -> None:
        asked.append(1)
        raise Moved

    monkeypatch.setattr(jail, "_checked", moved)
    assert jail.check("read", "f")
    assert not jail.check("read", ".env")
    assert 1 < len(asked) < 100


def test_nothing_cannot_be_kept(jail):
    with jail._root.resolve(jail._root.parse("nothing")) as target, pytest.raises(Moved):
        jail._store.keep(target, Reason("nothing", "deleted", None))
    assert jail.trash.items() == []


def test_a_folder_without_a_trash_in_it(jail, root):
    (root / ".fsjail").mkdir()
    assert jail.trash.items() == []
    assert jail.trash.recover() == []
    assert os.listdir(root / ".fsjail") == [], "looking makes nothing"


def test_recovery_says_what_it_could_not_mend(jail, root, monkeypatch):
    jail.write_text("f", "x")
    jail.delete("f")
    (root / ".fsjail/stage/purge-1").write_text("x")
    monkeypatch.setattr(_crash, "remove_entry", fails(errno.EIO))
    assert jail.trash.recover() == ["could not bring purge-1 in order: Input/output error"]
    monkeypatch.undo()
    assert jail.trash.recover() == ["ended the removal of 1"]
    assert kept(root) == ["x"]


def test_a_failed_look_for_info_files_of_nothing_changes_nothing(jail, root, monkeypatch):
    """It holds the exclusive lock: going on after an error there could wait for that lock for ever."""
    (root / "f").write_text("x")
    listing = os.listdir
    info = once(fails(errno.EIO), listing)
    jail.write_text("g", "x")
    jail.delete("g")
    jail.close()
    with Jail(root, jail.policy, state=jail.audit.folder) as again:
        watched = again._store._info
        monkeypatch.setattr(os, "listdir", lambda *a: info(*a) if a == (watched,) else listing(*a))
        with pytest.raises(TrashError, match="nothing was changed"):
            again.delete("f")
        assert (root / "f").read_text() == "x"
        assert again.delete("f").saved is not None, "the next one looks again"
    assert kept(root) == ["x", "x"]


def test_a_link_planted_in_the_stage_is_removed_as_itself(jail, root, base):
    jail.write_text("f", "x")
    jail.delete("f")
    (root / ".fsjail/stage/new-1").symlink_to(base / "outside/secret")
    assert jail.trash.recover() == ["removed unfinished new content new-1"]
    assert (base / "outside/secret").read_bytes() == b"SECRET"
    tidy(root)


# ── copying and removing ───────────────────────────────────────────────────────────────────────


@pytest.fixture
def pair(tmp_path) -> Iterator[tuple[int, int]]:
    """A file with content, and an empty one."""
    (tmp_path / "source").write_bytes(b"abcdefgh")
    source = os.open(tmp_path / "source", os.O_RDWR)
    target = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    yield source, target
    os.close(source)
    os.close(target)


def content(fd: int) -> bytes:
    return os.pread(fd, 1000, 0)


def whence(number: int, act: Callable[[], object]) -> Callable[..., int]:
    """``lseek`` with somebody else at the file behind each call with this whence."""
    real = os.lseek

    def lseek(fd: int, at: int, how: int) -> int:
        done = real(fd, at, how)
        if how == number:
            act()
        return done

    return lseek


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_that_knows_no_holes(number, pair, monkeypatch):
    real = os.lseek
    monkeypatch.setattr(os, "lseek", lambda *a: fails(number)() if a[2] == os.SEEK_DATA else real(*a))
    assert _copying.copy_data(*pair) == 8
    assert content(pair[1]) == b"abcdefgh"


def test_a_read_error_is_no_hole(pair, monkeypatch):
    monkeypatch.setattr(os, "lseek", fails(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        _copying.copy_data(*pair)


def test_a_file_that_grows_while_it_is_copied(pair, monkeypatch):
    monkeypatch.setattr(os, "lseek", whence(os.SEEK_HOLE, lambda: os.pwrite(pair[0], b"more", 8)))
    assert _copying.copy_data(*pair) == 12
    assert content(pair[1]) == b"abcdefghmore"


def test_a_file_that_shrinks_while_it_is_copied(pair, monkeypatch):
    monkeypatch.setattr(os, "lseek", whence(os.SEEK_HOLE, lambda: os.ftruncate(pair[0], 3)))
    assert _copying.copy_data(*pair) == 3
    assert content(pair[1]) == b"abc", "no zeros that never were in the file"


def test_a_file_system_that_says_it_copied_nothing(pair, monkeypatch):
    monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)
    assert _copying.copy_data(*pair) == 8
    assert content(pair[1]) == b"abcdefgh"


def test_metadata_where_python_has_no_attributes(pair, monkeypatch):
    monkeypatch.delattr(os, "listxattr")
    os.fchmod(pair[0], 0o640)
    os.utime(pair[0], ns=(1, 2))
    _copying.copy_metadata(*pair, times=True)
    st = os.fstat(pair[1])
    assert (stat.S_IMODE(st.st_mode), st.st_mtime_ns) == (0o640, 2)


@pytest.mark.parametrize(
    ("kind", "error"), [("fifo", Moved), ("link", Moved), ("directory", Moved), ("gone", FileNotFoundError)]
)
def test_a_file_that_is_swapped_before_it_is_copied(kind, error, root, base, monkeypatch):
    path = root / "f"
    path.write_text("x")

    def change() -> None:
        path.unlink()
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "link":
            path.symlink_to(base / "outside/secret")
        elif kind == "directory":
            path.mkdir()

    monkeypatch.setattr(_copying, "_open", once(change, _copying._open))
    folder = os.open(root, os.O_RDONLY)
    try:
        with pytest.raises(error):
            _copying.copy_entry(folder, "f", folder, "g")
    finally:
        os.close(folder)
    assert not (root / "g").exists()


@pytest.mark.parametrize("force", [False, True])
def test_a_file_that_may_not_be_removed(force, root, monkeypatch):
    """The first error is told, not that it is no directory; and force opens no file up."""
    (root / "f").write_text("x")
    (root / "f").chmod(0o400)
    monkeypatch.setattr(os, "unlink", fails(errno.EPERM))
    folder = os.open(root, os.O_RDONLY)
    try:
        with pytest.raises(PermissionError):
            _copying.remove_entry(folder, "f", force=force)
    finally:
        os.close(folder)
    assert stat.S_IMODE((root / "f").stat().st_mode) == 0o400


def test_a_tree_is_deleted_where_there_is_no_list_of_mounts(jail, root, monkeypatch):
    jail.mkdir("d")
    jail.write_text("d/f", "x")
    real = os.readlink
    monkeypatch.setattr(
        os,
        "readlink",
        lambda path, **options: fails(errno.ENOENT)() if "/proc/" in str(path) else real(path, **options),
    )
    saved = jail.delete("d").saved
    monkeypatch.undo()
    assert not (root / "d").exists()
    jail.trash.restore(saved.id)
    assert (root / "d/f").read_text() == "x"


@pytest.mark.parametrize("op", ["delete", "move"])
def test_what_is_in_use_is_told(op, jail, root, monkeypatch):
    """A mount point that only the rename tells of, as where there is no /proc."""
    jail.mkdir("d")
    monkeypatch.setattr(_stage, "renameat2", fails(errno.EBUSY))
    with pytest.raises(TrashError, match="mount point or in use; nothing was changed"):
        jail.delete("d") if op == "delete" else jail.move("d", "e")
    assert os.listdir(root / "d") == []
    assert jail.trash.items() == []
    assert not (root / "e").exists()


@pytest.mark.parametrize("below", ["", "/deep", "/a b\\c"])
def test_a_tree_that_holds_a_mount_point_is_not_deleted(below, jail, root, monkeypatch):
    """The kernel's list decides; blanks and backslashes are escaped in it."""
    jail.mkdir("d")
    point = f"{root / 'd'}{below}".replace("\\", "\\134").replace(" ", "\\040")

    def fake(path: str, mode: str) -> Any:
        assert path == "/proc/self/mountinfo"
        lines = (
            f"1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / {root}/dd rw - x x rw\n3 1 0:2 / {point} rw - x x rw\n"
        )
        return io.BytesIO(lines.encode())

    monkeypatch.setattr(_copying, "open", fake, raising=False)
    with pytest.raises(TrashError, match="mount point"):
        jail.delete("d")
    assert (root / "d").exists()
    jail.mkdir("e")
    jail.delete("e")
    assert not (root / "e").exists()


# ── staging, syncing, system calls ─────────────────────────────────────────────────────────────


def test_staged_content_can_be_let_go_of_twice(root, monkeypatch):
    monkeypatch.setattr(_stage, "_O_TMPFILE", 0)
    folder = os.open(root, os.O_RDONLY)
    try:
        staged = Staged(folder, lambda: folder)
        assert len(os.listdir(root)) == 1
        staged.close()
        staged.close()
    finally:
        os.close(folder)
    assert os.listdir(root) == []


def test_a_directory_that_cannot_be_renamed_leaves_no_empty_one(jail, root, monkeypatch):
    """Without RENAME_NOREPLACE an empty directory claims the name first."""
    jail.mkdir("d")
    jail.write_text("d/f", "x")
    monkeypatch.setattr(_stage, "renameat2", fails(errno.ENOSYS))
    monkeypatch.setattr(os, "rename", fails(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        jail.move("d", "e")
    assert (root / "d/f").read_text() == "x"
    assert not (root / "e").exists()


def test_a_folder_that_can_be_entered_only(jail, root, monkeypatch):
    """Its names cannot be synced by us; that is no reason not to write."""
    (root / "d").mkdir()
    real = os.open
    asked: list[str] = []

    def closed(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if path == "." and flags & os.O_TMPFILE != os.O_TMPFILE and flags & os.O_DIRECTORY:
            asked.append(path)
            raise fault(errno.EACCES)
        return real(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", closed)
    jail.write_text("d/f", "one")
    jail.write_text("d/f", "two")
    assert asked
    assert (root / "d/f").read_text() == "two"
    assert kept(root) == ["one"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_folder_that_cannot_be_synced(number, jail, root, monkeypatch):
    """A file system may know no such sync; a disk that fails is told."""
    real = os.fsync

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise fault(number)
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    if number == errno.EIO:
        with pytest.raises(OSError, match="Input/output"):
            jail.write_text("f", "x")
    else:
        jail.write_text("f", "x")
    assert (root / "f").read_text() == "x"


def test_a_claim_that_cannot_be_written_is_taken_back(jail, root, monkeypatch):
    (root / "f").write_text("x")
    jail.delete(jail.write_text("g", "y").path)
    monkeypatch.setattr(os, "write", fails(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        jail.delete("f")
    monkeypatch.undo()
    assert (root / "f").read_text() == "x"
    tidy(root)


def test_an_error_that_names_two_files_names_the_callers(jail, root, monkeypatch):
    """The system names the inner, relative names of both ends; the caller knows only their own."""
    (root / "d").mkdir()
    (root / "d/f").write_text("x")

    def link(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "f", None, "g")

    monkeypatch.setattr(_stage, "renameat2", fails(errno.ENOSYS))
    monkeypatch.setattr(os, "link", link)
    with pytest.raises(OSError, match="Input/output") as caught:
        jail.move("d/f", "g")
    assert (caught.value.filename, caught.value.filename2) == ("d/f", None)
    assert (root / "d/f").read_text() == "x"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EOPNOTSUPP])
def test_a_folder_that_takes_no_nameless_file(number, jail, root, monkeypatch):
    """A file system that has none is no obstacle; a refusal is one."""
    real = os.open

    def closed(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise fault(number)
        return real(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", closed)
    if number == errno.EACCES:
        with pytest.raises(PermissionError):
            jail.write_text("f", "x")
        assert not (root / "f").exists()
    else:
        jail.write_text("f", "x")
        assert (root / "f").read_text() == "x"
        tidy(root)


def test_a_copy_that_fails_is_no_shorter_copy(pair, monkeypatch):
    monkeypatch.setattr(os, "copy_file_range", fails(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        _copying.copy_data(*pair)


def test_openat2_is_asked_again_when_it_was_disturbed(monkeypatch):
    answers = [errno.EAGAIN, errno.EINTR, None]

    def openat2(*_: object) -> int:
        number = answers.pop(0)
        if number is None:
            return 7
        ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(_syscalls, "_openat2", openat2)
    assert _syscalls.openat2(3, b"f", _syscalls.how(os.O_RDONLY, 0)) == 7
    assert answers == []


def test_a_sync_that_fails_is_told():
    with pytest.raises(OSError, match="Bad file descriptor"):
        _syscalls.syncfs(-1)


def test_a_link_that_is_gone_again(jail, root, monkeypatch):
    """Opening met a link; looking what it was finds nothing: the name is judged anew."""
    (root / "f").write_text("old")
    real = os.open
    done: list[int] = []

    def race(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if path != "f" or done:
            return real(path, flags, *rest, **options)
        done.append(1)
        (root / "f").unlink()
        (root / "f").symlink_to("/etc/passwd")
        try:
            return real(path, flags, *rest, **options)
        finally:
            (root / "f").unlink()

    monkeypatch.setattr(os, "open", race)
    assert jail.write_text("f", "new").saved is None
    assert done
    assert (root / "f").read_text() == "new"


# ── judging ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["private/../f", "d/../private/../f", "private/sub/../../f"])
def test_a_denied_folder_is_no_way(path, make, root):
    """Else the answer would tell whether it, and what is in it, exists."""
    (root / "f").write_text("x")
    jail = make(Policy(read=Rules(deny=["private/"])))
    for exists in (False, True):
        if exists:
            (root / "private/sub").mkdir(parents=True)
            (root / "d").mkdir()
        with pytest.raises(PolicyDenied) as caught:
            jail.read_text(path)
        assert caught.value.decision.why == "read.deny[0]"
    assert not jail.check("read", path)


def test_the_root_is_the_root_by_way_of_a_link(jail, root):
    """By their letters these names are not the root; the link makes them the root."""
    (root / "d/sub").mkdir(parents=True)
    (root / "e").mkdir()
    (root / "d/sub/up").symlink_to("../../e")
    before = sorted(os.listdir(root))
    for call in (
        lambda: jail.delete("d/sub/up/.."),
        lambda: jail.move("d/sub/up/..", "new"),
        lambda: jail.copy("e", "d/sub/up/..", overwrite=True),
        lambda: jail.move("e", "d/sub/up/..", overwrite=True),
    ):
        with pytest.raises(OutOfBounds) as caught:
            call()
        assert caught.value.decision.why == "jail: root"
    assert sorted(os.listdir(root)) == before


# ── content ────────────────────────────────────────────────────────────────────────────────────


def test_lines_of_a_wide_encoding(make, root):
    (root / "f").write_text("".join(f"Zeile {n} ĊĀ\r\n" for n in range(1, 9)) + "ende", encoding="utf-16")
    jail = make(limits=Limits(max_read_bytes=60))
    lines = [f"Zeile {n} ĊĀ" for n in range(1, 9)] + ["ende"]
    assert jail.read_lines("f", 3, 2, encoding="utf-16") == lines[2:4]
    assert jail.read_lines("f", 8, encoding="utf-16") == lines[7:]
    assert jail.read_lines("f", 10, encoding="utf-16") == []
    with pytest.raises(LimitExceeded):
        jail.read_lines("f", encoding="utf-16")


def test_a_staged_file_commits_once(jail, root):
    file = jail.open("f", "wb")
    file.write(b"one")
    file.close()
    (root / "f").write_text("theirs")
    file.close()
    file.raw.close()
    assert (root / "f").read_text() == "theirs"
    assert len(list(jail.audit.events())) == 1


@pytest.mark.parametrize("resolver", ["openat2", "walk"])
def test_grep_of_a_file_that_became_a_fifo(resolver, make, root, monkeypatch):
    """It neither waits for the other end nor finds anything."""
    monkeypatch.setenv("FSJAIL_RESOLVER", resolver)
    (root / "f").write_text("x")
    jail = make()
    before = len(os.listdir("/proc/self/fd"))
    hits = jail.grep("x", "f")
    (root / "f").unlink()
    os.mkfifo(root / "f")
    assert list(hits) == []
    assert len(os.listdir("/proc/self/fd")) == before


# ── the difference to a kept item ──────────────────────────────────────────────────────────────


def test_diff_to_what_is_there_now(jail, root):
    jail.write_text("f", "one\ntwo\n")
    saved = jail.write_text("f", "one\n2\n").saved
    text = jail.trash.diff(saved.id)
    assert text.splitlines()[:2] == ["--- a/f", "+++ b/f"]
    assert "-two\n+2\n" in text
    (root / "f").write_text("one\ntwo\n")
    assert jail.trash.diff(saved.id) == ""
    (root / "f").unlink()
    assert "-one\n-two\n" in jail.trash.diff(saved.id)
    assert [item.id for item in jail.trash.items()] == [saved.id], "looking changes nothing"


def test_diff_of_what_is_no_text_file(jail, root):
    jail.mkdir("d")
    (root / "l").symlink_to("f")
    (root / "b").write_bytes(b"\xff\xfe")
    for name in ("d", "l", "b"):
        saved = jail.delete(name).saved
        with pytest.raises(TrashError, match="text file"):
            jail.trash.diff(saved.id)
    (root / ".fsjail/Trash/files/damaged").write_text("x")
    with pytest.raises(TrashError, match="undamaged"):
        jail.trash.diff("damaged")
    with pytest.raises(TrashError, match="no item"):
        jail.trash.diff("../../f")


def test_diff_to_what_is_no_text_now(jail, root):
    (root / "f").write_text("text")
    saved = jail.write_bytes("f", b"\xff\xfe").saved
    with pytest.raises(TrashError, match="text file"):
        jail.trash.diff(saved.id)


@pytest.mark.parametrize("there", [True, False])
def test_diff_is_judged(there, jail, make, root):
    """What was kept before a rule came is not shown by the way of a comparison."""
    jail.write_text("private", "SECRET")
    saved = jail.delete("private").saved
    if there:
        (root / "private").write_text("new")
    strict = make(Policy(read=Rules(deny=["private"])))
    with pytest.raises(PolicyDenied) as caught:
        strict.trash.diff(saved.id)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("large", ["kept", "now"])
def test_diff_keeps_to_the_limit_of_one_read(large, make, root):
    jail = make(limits=Limits(max_read_bytes=10))
    (root / "f").write_text("x" * (11 if large == "kept" else 1))
    saved = jail.write_text("f", "y" * (1 if large == "kept" else 11)).saved
    with pytest.raises(LimitExceeded):
        jail.trash.diff(saved.id)
    assert make(limits=Limits(max_read_bytes=None)).trash.diff(saved.id)


# ── undo ───────────────────────────────────────────────────────────────────────────────────────

CHANGES: dict[str, Callable[[Jail], object]] = {
    "create": lambda jail: jail.write_text("n", "new"),
    "write": lambda jail: jail.write_text("f", "new"),
    "edit": lambda jail: jail.edit("f", "old", "new"),
    "mkdir": lambda jail: jail.mkdir("n"),
    "copy": lambda jail: jail.copy("f", "n"),
    "copy onto": lambda jail: jail.copy("f", "g", overwrite=True),
    "move": lambda jail: jail.move("f", "n"),
    "move onto": lambda jail: jail.move("f", "g", overwrite=True),
    "delete": lambda jail: jail.delete("f"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_dry_undo_tells_what_the_real_one_does(name, jail, root):
    (root / "f").write_text("old")
    (root / "g").write_text("other")
    CHANGES[name](jail)
    before = {path: path.lstat().st_ctime_ns for path in root.rglob("*")}
    records = len(list(jail.audit.events()))
    planned = jail.undo(dry_run=True)
    assert {path: path.lstat().st_ctime_ns for path in root.rglob("*")} == before
    assert len(list(jail.audit.events())) == records
    done = jail.undo()
    assert [(each.op, each.path, each.to) for each in planned] == [(e.op, e.path, e.to) for e in done]


def test_undo_of_a_creation_that_is_gone_already(jail, root):
    jail.write_text("n", "new")
    (root / "n").unlink()
    assert jail.undo() == []


# ── the tools ──────────────────────────────────────────────────────────────────────────────────


def test_a_search_that_ends_before_it_found_anything(make, root):
    (root / "f").write_text("x")
    tools = {tool.__name__: tool for tool in file_tools(make(limits=Limits(max_seconds=1e-9)))}
    for answer in (tools["grep"]("x"), tools["file_search"]("*")):
        assert answer.startswith("Limit: ")
        assert "x\n" not in answer


def test_a_huge_file_can_be_read_to_its_end_by_following_the_answers(make, root):
    lines = [f"{number} {'x' * (number * 37 % 190)}" for number in range(1, 1201)]
    (root / "f").write_text("\n".join(lines) + "\n")
    jail = make(limits=Limits(max_read_bytes=60_000))
    read = next(tool for tool in file_tools(jail) if tool.__name__ == "read_file")
    got: dict[int, str] = {}
    start = 1
    for _ in range(20):
        answer = read("f", start)
        if answer == f"[there is no line {start}]":
            break
        text, _, note = answer.rpartition("\n")
        assert len(text) <= MAX_CHARACTERS
        got |= dict(enumerate(text.split("\n"), start))
        found = re.search(r"start_line=(\d+)", note)
        assert found, note
        assert "cut after" in note or len(text) < MAX_CHARACTERS
        start = int(found.group(1))
    assert list(got.values()) == lines
