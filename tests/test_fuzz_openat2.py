"""Random trees and paths: both resolvers against the kernel's own confinement.

The oracle is ``openat2`` with ``RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS``. Links that are absolute and point
into the root are our extension, which the kernel refuses; so each tree is built twice: in the twin every such
link has the same meaning as a relative text, and the kernel's answer there is the one wanted here.
"""

from __future__ import annotations

import os
import random
import stat
from typing import TYPE_CHECKING

import pytest

from _attackers import (
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVERS,
    attempt,
    can_openat2,
    openat2,
    outcome,
    pick_resolver,
)
from fsjail._root import Root

if TYPE_CHECKING:
    from pathlib import Path

_WHY_NOT = can_openat2()
pytestmark = pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT or "openat2 works")

BENEATH = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
NAMES = ("a", "b", "c", "..x", "é")
TREES = 100
PATHS = 80


def _random_text(rng: random.Random, depth: int) -> str:
    """A link's text; ``{ROOT}`` stands for the root's own path."""
    parts = [rng.choice([*NAMES, *NAMES, "..", "."]) for _ in range(rng.randint(1, 4))]
    text = "/".join(parts) + rng.choice(["", "", "", "/", "/.", "/.."])
    match rng.randrange(12):
        case 0 | 1:
            return "{ROOT}/" + text
        case 2:
            return "{ROOT}"
        case 3:
            return rng.choice(
                ["/", "/etc/passwd", "/proc/self/root", "/proc/self/cwd/", "{ROOT}x/a", "{ROOT}/../root/a"]
            )
        case 4:
            return "../" * depth + text
        case 5:
            return "../" * (depth + 1) + "outside/" + rng.choice(["a", "nope"])
        case _:
            return text


def _grow(rng: random.Random) -> dict[str, tuple[str, str]]:
    """Draw a tree: relative name -> (kind, link text)."""
    tree: dict[str, tuple[str, str]] = {}
    folders = [""]
    for _ in range(rng.randint(6, 24)):
        above = rng.choice(folders)
        name = f"{above}{rng.choice(NAMES)}"
        if name in tree:
            continue
        kind = rng.choice(["dir", "dir", "file", "link", "link", "link"])
        tree[name] = (kind, _random_text(rng, above.count("/")))
        if kind == "dir":
            folders.append(name + "/")
    return tree


def _plant(top: Path, tree: dict[str, tuple[str, str]], *, relative: bool) -> None:
    """Build a tree; `relative` writes absolute links into the root as their relative equivalent."""
    top.mkdir(parents=True)
    (top.parent / "outside").mkdir(exist_ok=True)
    (top.parent / "outside" / "a").write_text("SECRET")
    for name, (kind, text) in tree.items():
        path = top / name
        if kind == "dir":
            path.mkdir()
        elif kind == "file":
            path.write_text(f"content of {name}")
        else:
            up = "/".join([".."] * name.count("/")) or "."
            inside = text == "{ROOT}" or text.startswith("{ROOT}/")
            os.symlink(text.replace("{ROOT}", up if relative and inside else str(top)), path)


def _random_path(rng: random.Random, tree: dict[str, tuple[str, str]]) -> str:
    if rng.random() < 0.4:
        path = (
            "/".join(rng.choice([*NAMES, *NAMES, "..", ".", ""]) for _ in range(rng.randint(1, 6))).lstrip(
                "/"
            )
            or "."
        )
    else:
        path = rng.choice(list(tree))
        if rng.random() < 0.6:
            path += "/" + "/".join(rng.choice([*NAMES, "..", "..", "."]) for _ in range(rng.randint(1, 4)))
    return path + rng.choice(["", "", "", "", "/", "//", "/."])


def _inodes(top: Path) -> dict[tuple[int, int], str]:
    """Map each inode of a tree to its canonical name."""
    found = {}
    for folder, dirs, files in os.walk(top):
        for path in (folder, *(os.path.join(folder, name) for name in dirs + files)):
            st = os.lstat(path)
            found[st.st_dev, st.st_ino] = os.path.relpath(path, top)
    return found


def _ask_kernel(top_fd: int, path: str, inodes: dict[tuple[int, int], str], *, follow: bool) -> str:
    """The kernel's answer: `-> canonical name`, or the class of its refusal."""
    error, fd = attempt(lambda: openat2(top_fd, path, os.O_PATH | (0 if follow else os.O_NOFOLLOW), BENEATH))
    if error is not None:
        return {18: "denied"}.get(error.errno, outcome(error))
    st = os.fstat(fd)
    os.close(fd)
    return f"-> {inodes[st.st_dev, st.st_ino]}"


def _ask_root(root: Root, path: str, inodes: dict[tuple[int, int], str], *, follow: bool) -> str:
    """Our answer in the same words; on the way it proves that the target is what it says it is."""
    error, target = attempt(lambda: root.resolve(root.parse(path), follow=follow))
    if error is not None:
        return outcome(error)
    with target:
        assert "/" not in target.leaf
        assert target.leaf not in {"", ".."}
        if target.name != ".":
            # The canonical name has no link on its way: the kernel reaches the held parent by it.
            above = os.path.dirname(target.name) or "."
            fd = openat2(root.fd, above, os.O_PATH, BENEATH | RESOLVE_NO_SYMLINKS)
            try:
                assert os.path.samestat(os.fstat(fd), os.fstat(target.parent))
            finally:
                os.close(fd)
            assert target.leaf == os.path.basename(target.name)
        if target.st is None:
            with pytest.raises(FileNotFoundError):
                os.lstat(target.leaf, dir_fd=target.parent)
            return "notfound"
        assert os.path.samestat(target.st, os.lstat(target.leaf, dir_fd=target.parent))
        name = inodes[target.st.st_dev, target.st.st_ino]
        assert target.name == name
        return f"-> {name}"


def _climbs(path: str) -> bool:
    """Whether a name, collapsed as a string, climbs above the root: it may be refused without the disk."""
    depth = 0
    for part in path.split("/"):
        depth += -1 if part == ".." else part not in {"", "."}
        if depth < 0:
            return True
    return False


@pytest.mark.parametrize("seed", range(TREES))
def test_resolvers_answer_as_the_kernel(tmp_path, seed):
    rng = random.Random(f"tree {seed}")
    tree = _grow(rng)
    top, twin = tmp_path / "ours" / "root", tmp_path / "twin" / "root"
    _plant(top, tree, relative=False)
    _plant(twin, tree, relative=True)
    inodes, twin_inodes = _inodes(top), _inodes(twin)
    roots = [Root(top, resolver=name) for name in RESOLVERS]
    twin_fd = os.open(twin, os.O_PATH)
    try:
        for _ in range(PATHS):
            path = _random_path(rng, tree)
            # openat("link/", O_NOFOLLOW) follows the link, which no change of a name may; those follow here.
            follow = rng.random() < 0.6 or path.endswith(("/", "/.", "/..")) or path in {".", ".."}
            wanted = _ask_kernel(twin_fd, path, twin_inodes, follow=follow)
            got = [_ask_root(root, path, inodes, follow=follow) for root in roots]
            assert got[0] == got[1], f"the resolvers differ on {path!r}, follow={follow}, in {tree}"
            if got[0] == "denied" and wanted in {"notfound", "notdir", "loop"} and _climbs(path):
                continue
            assert got[0] == wanted, f"{path!r}, follow={follow}, in {tree}"
            absolute = f"{top}/{path}"
            assert _ask_root(roots[0], absolute, inodes, follow=follow) == got[0], f"{absolute!r} in {tree}"
    finally:
        os.close(twin_fd)
        for root in roots:
            root.close()


def test_the_oracle_sees_every_class(tmp_path):
    """The trees are rich enough: each class of answer occurs often, with and without following."""
    seen: dict[str, int] = {}
    for seed in range(20):
        rng = random.Random(f"tree {seed}")
        tree = _grow(rng)
        twin = tmp_path / str(seed) / "root"
        _plant(twin, tree, relative=True)
        inodes = _inodes(twin)
        fd = os.open(twin, os.O_PATH)
        for _ in range(PATHS):
            answer = _ask_kernel(fd, _random_path(rng, tree), inodes, follow=True)
            seen["ok" if answer.startswith("->") else answer] = seen.get(answer, 0) + 1
        os.close(fd)
    assert set(seen) >= {"ok", "denied", "notfound", "notdir", "loop"}, seen


@pytest.mark.parametrize("resolver", RESOLVERS)
@pytest.mark.parametrize("count", [39, 40, 41])
def test_chains_end_where_the_kernel_ends_them(tmp_path, monkeypatch, resolver, count):
    pick_resolver(monkeypatch, resolver)
    (tmp_path / "end").write_text("E")
    for number in range(1, count + 1):
        os.symlink("end" if number == 1 else f"l{number - 1}", tmp_path / f"l{number}")
    root = Root(tmp_path)
    error, target = attempt(lambda: root.resolve(root.parse(f"l{count}")))
    oracle, fd = attempt(lambda: openat2(root.fd, f"l{count}", os.O_PATH, BENEATH))
    assert outcome(error) == outcome(oracle)
    for held in (target, root):
        if held is not None:
            held.close()
    if fd is not None:
        os.close(fd)


@pytest.mark.parametrize("resolver", RESOLVERS)
def test_deep_trees_beyond_the_held_descriptors(tmp_path, monkeypatch, resolver):
    """A walk holds few descriptors however deep it goes, and finds its way back up by names."""
    pick_resolver(monkeypatch, resolver)
    depth, fd = 300, os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("x", dir_fd=fd)
        below = os.open("x", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.symlink("../" * depth + "f", "up", dir_fd=fd)
    os.symlink("../" * (depth + 1) + "outside", "out", dir_fd=fd)
    os.close(fd)
    (tmp_path / "f").write_text("F")
    root = Root(tmp_path)
    deep = "x/" * depth
    wanted = (tmp_path / "f").stat()
    for path in (deep + "up", deep + "../" * depth + "f", deep + "../" * 200 + "x/" * 200 + "up"):
        with root.resolve(root.parse(path)) as target:
            assert target.name == "f"
            assert os.path.samestat(target.st, wanted)
    for path in (deep + "out", deep + "../" * (depth + 1) + "f"):
        error, _ = attempt(lambda path=path: root.resolve(root.parse(path)))
        assert outcome(error) == "denied"
    assert stat.S_ISDIR(root.resolve(root.parse(deep)).st.st_mode)
    root.close()
