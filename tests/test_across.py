"""The trash across file systems: a tmpfs mounted inside the root, and nothing is lost on either side."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fsjail import Jail, Policy, Rules, TrashError, _across, _copying

OPEN = Policy(write=Rules(allow=["*"]), presets=())


@contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def root(base) -> Iterator[Path]:
    if os.getuid() != 0:
        pytest.skip("mounting needs root")
    with mounted(base / "root/mnt"):
        yield base / "root"


@pytest.fixture
def jail(root, base) -> Iterator[Jail]:
    with Jail(root, OPEN, state=base / "state") as made:
        yield made


def tidy(root: Path) -> None:
    home = root / ".fsjail"
    assert os.listdir(home / "stage") == []
    infos = {name.removesuffix(".trashinfo") for name in os.listdir(home / "Trash/info")}
    assert infos == set(os.listdir(home / "Trash/files"))
    assert not list(root.rglob(".fsjail-*"))


def test_overwrite_and_restore(jail, root):
    jail.write_text("mnt/f", "one")
    os.chmod(root / "mnt/f", 0o640)
    saved = jail.write_text("mnt/f", "two").saved
    assert saved is not None
    assert stat.S_IMODE((root / "mnt/f").stat().st_mode) == 0o640
    assert jail.trash.restore(saved.id, overwrite=True) == "mnt/f"
    assert jail.read_text("mnt/f") == "one"
    assert [item.path for item in jail.trash.items()] == ["mnt/f"]
    tidy(root)


def test_delete_of_a_tree_with_everything_in_it(jail, root):
    tree = root / "mnt/d"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/f").write_text("x")
    os.utime(tree / "sub/f", ns=(1, 1_234_567_890_123_456_789))
    os.symlink("sub/f", tree / "l")
    os.mkfifo(tree / "p")
    with open(tree / "sparse", "wb") as file:
        file.truncate(4 << 20)
    change = jail.delete("mnt/d")
    assert not tree.exists()
    tidy(root)
    jail.undo(change)
    assert (tree / "sub/f").stat().st_mtime_ns == 1_234_567_890_123_456_789
    assert os.readlink(tree / "l") == "sub/f"
    assert stat.S_ISFIFO((tree / "p").stat().st_mode)
    assert (tree / "sparse").stat().st_size == 4 << 20
    assert (tree / "sparse").stat().st_blocks == 0
    tidy(root)


@pytest.mark.parametrize(("source", "target"), [("mnt/a", "b"), ("a", "mnt/b")])
def test_move_and_copy(source, target, jail, root):
    jail.mkdir(source)
    jail.write_text(f"{source}/f", "x")
    jail.copy(source, target)
    assert jail.read_text(f"{target}/f") == "x"
    jail.move(source, f"{target}/in")
    assert not (root / source).exists()
    assert jail.read_text(f"{target}/in/f") == "x"
    jail.write_text(source, "new")
    saved = jail.move(source, f"{target}/f", overwrite=True).saved
    assert saved is not None
    assert jail.read_text(f"{target}/f") == "new"
    assert jail.trash.restore(saved.id, to="back") == "back"
    assert jail.read_text("back") == "x"
    tidy(root)


def test_a_mount_point_is_not_deleted_or_moved(jail, root):
    (root / "mnt/f").write_text("x")
    jail.mkdir("d")
    with mounted(root / "d/deep"):
        for call in (
            lambda: jail.delete("mnt"),
            lambda: jail.delete("d"),
            lambda: jail.delete("d/deep"),
            lambda: jail.move("mnt", "m"),
        ):
            with pytest.raises(TrashError, match="mount point"):
                call()
        assert (root / "mnt/f").read_text() == "x"
    tidy(root)


@pytest.mark.parametrize("step", ["copy", "sync", "remove"])
@pytest.mark.parametrize("name", ["mnt/f", "mnt/d"])
def test_a_failure_keeps_the_original(step, name, jail, root, monkeypatch):
    jail.write_text("mnt/f", "x")
    jail.mkdir("mnt/d")
    jail.write_text("mnt/d/f", "y")
    jail.write_text("other", "z")
    jail.delete("other")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    real = _copying.remove_entry
    if step == "copy":
        monkeypatch.setattr(_across, "copy_entry", fail)
    elif step == "sync":
        monkeypatch.setattr(_across, "syncfs", fail)
    else:
        seen: list[str] = []

        def once(folder: int, leaf: str, **options: bool) -> None:
            if leaf in {"f", "d"} and not seen:
                seen.append(leaf)
                fail()
            real(folder, leaf, **options)

        monkeypatch.setattr(_across, "remove_entry", once)
    with pytest.raises(OSError, match="No space left"):
        jail.delete(name)
    assert (root / "mnt/f").read_text() == "x"
    assert (root / "mnt/d/f").read_text() == "y"
    monkeypatch.undo()
    tidy(root)


@pytest.mark.parametrize("step", ["exchange", "sync"])
def test_a_failed_overwrite_keeps_the_old(step, jail, root, monkeypatch):
    jail.write_text("mnt/f", "old")

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(_across, "renameat2" if step == "exchange" else "syncfs", fail)
    with pytest.raises(OSError, match="Input/output"):
        jail.write_text("mnt/f", "new")
    assert (root / "mnt/f").read_text() == "old"
    monkeypatch.undo()
    assert os.listdir(root / ".fsjail/stage") == []
    assert not list(root.rglob(".fsjail-*"))


def test_what_a_crash_left_beside_is_removed(jail, root, base):
    jail.write_text("mnt/f", "old")
    jail.write_text("x", "x")
    jail.delete("x")
    jail.close()
    token = "0123456789abcdef01234567"
    (root / f".fsjail/stage/{token}.beside").write_text("mnt")
    (root / f"mnt/.fsjail-{token}").mkdir()
    (root / f"mnt/.fsjail-{token}/f").write_text("half")
    with Jail(root, OPEN, state=base / "state") as again:
        assert again.read_text("mnt/f") == "old"
    tidy(root)


def test_without_tmpfile_the_new_content_crosses_too(jail, root, monkeypatch):
    monkeypatch.setattr("fsjail._stage._O_TMPFILE", 0)
    jail.write_text("mnt/f", "one")
    saved = jail.write_text("mnt/f", "two").saved
    assert saved is not None
    assert jail.read_text("mnt/f") == "two"
    jail.trash.restore(saved.id, to="g")
    assert jail.read_text("g") == "one"
    tidy(root)


def test_what_changes_while_it_is_copied_is_judged_anew(jail, root, monkeypatch):
    jail.write_text("mnt/f", "old")
    real = _copying.copy_entry
    seen: list[int] = []

    def meddle(*arguments: object) -> int:
        done = real(*arguments)  # type: ignore[arg-type]
        if not seen:
            seen.append(1)
            (root / "mnt/f").write_text("somebody else's")
        return done

    monkeypatch.setattr(_across, "copy_entry", meddle)
    saved = jail.delete("mnt/f").saved
    assert saved is not None
    jail.trash.restore(saved.id)
    assert jail.read_text("mnt/f") == "somebody else's"
    tidy(root)


@pytest.fixture(params=["bind", "overlay"])
def twin(request, base) -> Iterator[Path]:
    """A mount in the root whose st_dev says nothing: a bind mount of the same file system, or an overlay."""
    if os.getuid() != 0:
        pytest.skip("mounting needs root")
    lower, mount = base / "lower", base / "root/mnt"
    (lower / "d").mkdir(parents=True)
    (lower / "d/f").write_text("x")
    (lower / "f").write_text("old")
    mount.mkdir()
    if request.param == "bind":
        command = ["mount", "--bind", str(lower), str(mount)]
    else:
        # An upper layer on a tmpfs: an overlay does not take every file system for it.
        upper = base / "upper"
        upper.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", str(upper)], check=True, capture_output=True)
        (upper / "up").mkdir()
        (upper / "work").mkdir()
        layers = f"lowerdir={lower},upperdir={upper}/up,workdir={upper}/work"
        command = ["mount", "-t", "overlay", "overlay", "-o", layers, str(mount)]
    done = subprocess.run(command, capture_output=True, check=False)
    try:
        if done.returncode != 0:
            pytest.skip(f"no {request.param} mount can be made here")
        yield base / "root"
    finally:
        subprocess.run(["umount", "-l", str(mount)], capture_output=True, check=False)
        subprocess.run(["umount", "-l", str(base / "upper")], capture_output=True, check=False)


def test_mounts_that_share_their_device_number(twin, base):
    with Jail(twin, OPEN, state=base / "state") as jail:
        saved = jail.write_text("mnt/f", "new").saved
        assert saved is not None
        assert jail.trash.restore(saved.id, overwrite=True) == "mnt/f"
        assert jail.read_text("mnt/f") == "old"
        change = jail.delete("mnt/d")
        assert not (twin / "mnt/d").exists()
        jail.undo(change)
        jail.move("mnt/d", "moved")
        jail.move("moved", "mnt/back")
        assert jail.read_text("mnt/back/f") == "x"
        jail.copy("mnt/back", "copied")
        assert jail.read_text("copied/f") == "x"
        with pytest.raises(TrashError, match="mount point"):
            jail.delete("mnt")
    tidy(twin)


def test_a_lower_directory_of_an_overlay_as_the_root(base):
    """In an overlay a rename of a directory that lies below answers EXDEV, within one mount."""
    if os.getuid() != 0:
        pytest.skip("mounting needs root")
    lower, root, upper = base / "lower", base / "root", base / "upper"
    (lower / "d/e").mkdir(parents=True)
    (lower / "d/e/f").write_text("x")
    upper.mkdir()
    with mounted(upper):
        (upper / "up").mkdir()
        (upper / "work").mkdir()
        layers = f"lowerdir={lower},upperdir={upper}/up,workdir={upper}/work"
        command = ["mount", "-t", "overlay", "overlay", "-o", layers, str(root)]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("no overlay mount can be made here")
        try:
            with Jail(root, OPEN, state=base / "state") as jail:
                change = jail.delete("d")
                assert not (root / "d").exists()
                jail.undo(change)
                assert jail.read_text("d/e/f") == "x"
                jail.move("d", "g")
                saved = jail.write_text("g/e/f", "new").saved
                assert saved is not None
                jail.trash.restore(saved.id, overwrite=True)
                assert jail.read_text("g/e/f") == "x"
            tidy(root)
        finally:
            subprocess.run(["umount", "-l", str(root)], capture_output=True, check=False)
