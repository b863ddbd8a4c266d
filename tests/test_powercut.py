"""A power cut: the disk as it is behind a finished call, without what memory still holds.

The root lies on an ext4 image mounted through a loop device that writes through to the image file. A copy
of that file, taken while it is mounted and never unmounted, is what a power cut leaves; it is checked and
repaired by e2fsck, mounted elsewhere, and looked at.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fsjail import Jail, Policy, Rules

OPEN = Policy(write=Rules(allow=["*"]))
TOOLS = ("losetup", "mkfs.ext4", "e2fsck", "mount", "umount")


def tool(*words: object, good: tuple[int, ...] = (0,)) -> str:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    program = shutil.which(str(words[0]), path=path)
    if program is None:
        pytest.skip(f"there is no {words[0]}")
    done = subprocess.run([program, *map(str, words[1:])], capture_output=True, text=True, check=False)
    if done.returncode not in good:
        message = f"{words[0]} cannot be used here: {done.stderr.strip()}"
        raise OSError(message)
    return done.stdout.strip()


@contextmanager
def mounted(image: Path, folder: Path) -> Iterator[Path]:
    """Attach and mount an image; unmounted and detached whatever happens."""
    folder.mkdir(exist_ok=True)
    device = tool("losetup", "--find", "--show", image)
    try:
        # No commit of the journal by the clock: only what is synced reaches the disk.
        tool("mount", "-t", "ext4", "-o", "commit=300", device, folder)
        try:
            yield folder
        finally:
            tool("umount", "-l", folder)
    finally:
        tool("losetup", "--detach", device)


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    if os.getuid() != 0:
        pytest.skip("loop devices and mounting need root")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(32 << 20)
    try:
        tool("mkfs.ext4", "-q", "-F", image)
        with mounted(image, tmp_path / "disk") as folder:
            yield folder
    except OSError as error:
        pytest.skip(str(error))


def after_power_cut(tmp_path: Path, number: int) -> Iterator[Path]:
    copy = tmp_path / f"copy{number}"
    shutil.copyfile(tmp_path / "image", copy)
    tool("e2fsck", "-fy", copy, good=(0, 1))  # replays the journal; 1: it mended something
    with mounted(copy, tmp_path / f"cut{number}") as folder:
        yield folder / "root"
    copy.unlink()


def contents(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".fsjail" not in path.relative_to(root).parts
    }


STEPS = [
    ("create", lambda jail: jail.write_text("n", "created\n" * 900)),
    ("write", lambda jail: jail.write_text("f", "written\n" * 900)),
    ("append", lambda jail: jail.append_text("f", "appended\n")),
    ("edit", lambda jail: jail.edit("g", "other", "edited")),
    ("copy", lambda jail: jail.copy("g", "h")),
    ("copy tree", lambda jail: jail.copy("d", "c")),
    ("move", lambda jail: jail.move("h", "d/h")),
    ("move onto", lambda jail: jail.move("g", "f", overwrite=True)),
    ("delete", lambda jail: jail.delete("n")),
    ("restore", lambda jail: jail.trash.restore(jail.trash.items()[0].id)),
    ("restore swap", lambda jail: jail.undo()),
    ("delete tree", lambda jail: jail.delete("d")),
    ("purge", lambda jail: jail.trash.purge(keep_bytes=20_000)),
]


@pytest.mark.parametrize("durability", ["full", "none"])
def test_a_power_cut_behind_a_finished_call(durability, disk, tmp_path):
    """With full durability every finished call is on the disk, its trash too; never half a file."""
    root = disk / "root"
    (root / "d").mkdir(parents=True)
    for path, text in (("f", "old f\n"), ("g", "other g\n"), ("d/x", "in d\n")):
        (root / path).write_text(text)
    os.sync()
    behind = 0
    states = [contents(root)]
    with Jail(root, OPEN, state=tmp_path / "state", durability=durability) as jail:
        for number, (name, act) in enumerate(STEPS):
            act(jail)
            states.append(contents(root))
            kept = {(item.path, item.why, item.size) for item in jail.trash.items()}
            for cut in after_power_cut(tmp_path, number):
                with Jail(cut, OPEN, state=tmp_path / f"state{number}") as again:
                    again.trash.recover()
                    found = contents(cut)
                    held = {(item.path, item.why, item.size) for item in again.trash.items()}
                if durability == "full":
                    assert found == states[-1], f"not on the disk behind {name}"
                    assert held == kept, f"not in the trash on the disk behind {name}"
                else:  # some time ago, but whole
                    assert all(text for text in found.values()), f"an empty file behind {name}"
                    behind += found != states[-1]
    if durability == "none":
        assert behind, "the control: without syncs the disk is behind, so that the cut is a cut"
