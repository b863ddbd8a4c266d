"""Every path case of `data/paths.json` on both resolvers, with equal answers.

Calls that a Jail has no method for (making links, chmod, readlink) are done here on a `Target`, in the few
lines that any new operation would take: they show that a held parent and a slash-free leaf are enough.
Cases with an attacker are in test_races.py.
"""

from __future__ import annotations

import errno
import json
import os
import posixpath
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from _attackers import (
    RESOLVERS,
    SECRET,
    Scene,
    assert_clean,
    attempt,
    build,
    drop_to_nobody,
    holders_of,
    in_child,
    make_scene,
    names_in,
    outcome,
    pick_resolver,
    text_of,
    watchdog,
)
from fsjail import AccessDenied, Jail, OutOfBounds, Policy, Rules
from fsjail._root import Root

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "data" / "paths.json").read_text())
CALM = [case for case in CASES if "attacker" not in case and case["call"] != "open_root"]

# Where a choice of ours (DESIGN, section 4) differs from the answer that the case calls wanted.
OURS = {
    # The default write replaces the name: it answers, and the other name of the inode keeps its bytes.
    "hl-003": {"ok"},
    # The root is never the object of a change, and the refusal says so.
    "mkdir-008": {"denied", "exists"},
}


def policy_of(case: dict[str, Any]) -> Policy:
    """Build the rules of a case; without any, all may be read and written."""
    rules = case.get("policy", {})
    return Policy(
        read=Rules(deny=rules["deny_read"]) if "deny_read" in rules else Rules(),
        write=Rules(allow=["*"], deny=rules["deny_write"]) if "deny_write" in rules else Rules(allow=["*"]),
        presets=(),
    )


# -- calls ---------------------------------------------------------------------------------------------
# Each takes the jail, a Root on the same place and the arguments, and returns what an agent would see.


def open_read(jail, _root, path):
    data = jail.read_bytes(path)
    with jail.open(path, "rb") as file:
        assert file.read() == data
    return data


def open_write(jail, _root, path):
    with jail.open(path, "wb") as file:
        file.write(b"WRITTEN")


def symlink(_jail, root, text, path):
    """Make a link; its text is judged from the link's own directory."""
    with root.resolve(root.parse(path), follow=False) as target:
        if target.st is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        joined = text if text.startswith("/") else posixpath.join(posixpath.dirname(target.name), text)
        root.resolve(root.parse(joined)).close()
        os.symlink(text, target.leaf, dir_fd=target.parent)


def link(_jail, root, old, new):
    with (
        root.resolve(root.parse(old), follow=False) as here,
        root.resolve(root.parse(new), follow=False) as there,
    ):
        os.link(here.leaf, there.leaf, src_dir_fd=here.parent, dst_dir_fd=there.parent, follow_symlinks=False)


def chmod(_jail, root, path, mode):
    """Change a mode through a descriptor: the name cannot be swapped between the look and the change."""
    with root.resolve(root.parse(path)) as target:
        if target.st is not None and target.st.st_nlink > 1 and not stat.S_ISDIR(target.st.st_mode):
            raise AccessDenied(errno.EACCES, "the file has another name, which would change too", path)
        fd = os.open(target.leaf, os.O_PATH | os.O_NOFOLLOW, dir_fd=target.parent)
        try:
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            os.chmod(f"/proc/self/fd/{fd}", mode)
        finally:
            os.close(fd)


def readlink(_jail, root, path):
    with root.resolve(root.parse(path), follow=False) as target:
        return os.readlink(target.leaf, dir_fd=target.parent)


CALLS = {
    "open_read": open_read,
    "open_write": open_write,
    "write_atomic": lambda jail, _root, path: jail.write_bytes(path, b"WRITTEN"),
    "open_append": lambda jail, _root, path: jail.append_text(path, "WRITTEN"),
    "create_excl": lambda jail, _root, path: jail.open(path, "xb").close(),
    "stat": lambda jail, _root, path: jail.stat(path).st_size,
    "lstat": lambda jail, _root, path: jail.stat(path, follow_symlinks=False).st_mode,
    "listdir": lambda jail, _root, path: sorted(entry.name for entry in jail.listdir(path)),
    "walk": lambda jail, _root, path: sorted(
        (top, sorted(dirs), sorted(files)) for top, dirs, files in jail.walk(path)
    ),
    "mkdir": lambda jail, _root, path: jail.mkdir(path),
    "mkdir_parents": lambda jail, _root, path: jail.mkdir(path, parents=True, exist_ok=True),
    "remove": lambda jail, _root, path: jail.delete(path),
    "remove_tree": lambda jail, _root, path: jail.delete(path),
    "rename": lambda jail, _root, old, new: jail.move(old, new, overwrite=True),
    "symlink": symlink,
    "link": link,
    "chmod": chmod,
    "readlink": readlink,
}
CHANGES = {
    "open_write",
    "write_atomic",
    "open_append",
    "create_excl",
    "mkdir",
    "mkdir_parents",
    "remove",
    "remove_tree",
    "rename",
}
ON_THE_NAME = {
    "lstat",
    "readlink",
    "remove",
    "remove_tree",
    "rename",
    "symlink",
    "link",
}  # a link there is not followed
ASKED_AS = {
    "open_read": "read",
    "open_write": "write",
    "write_atomic": "write",
    "open_append": "write",
    "create_excl": "write",
    "listdir": "list",
    "mkdir": "mkdir",
    "mkdir_parents": "mkdir",
    "remove": "delete",
    "remove_tree": "delete",
}


@dataclass(frozen=True)
class Answer:
    """What one resolver made of a case."""

    kind: str
    name: str | None
    value: str
    tree: dict[str, tuple[object, ...]]


def run(case: dict[str, Any], folder: Path, *, nobody: bool = False) -> Answer:
    """Run a case in a fresh scene and hold it against the standing invariants."""
    scene = make_scene(folder)
    build(scene.base, case["setup"], scene.fill)
    args = [scene.fill(arg) if isinstance(arg, str) else arg for arg in case["args"]]
    if nobody:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 65534, 65534, follow_symlinks=False)
        return in_child(lambda: (drop_to_nobody(), _run(case, scene, args))[1])
    return _run(case, scene, args)


def _run(case: dict[str, Any], scene: Scene, args: list[Any]) -> Answer:
    where = scene.fill(case.get("open_root_via", "{ROOT}"))
    planted = holders_of(SECRET, scene.root)
    around, before = scene.around(), names_in(scene.root)
    jail, root = Jail(where, policy_of(case), state=scene.state), Root(where)
    try:
        build(scene.base, case.get("after_open", []), scene.fill)
        if "after_open" in case:
            around = scene.around()
        target_name = None
        if case["call"] in ON_THE_NAME:
            target_name = _name_of(root, args[-1], follow=False)
        decision = None
        if case["call"] in ASKED_AS:
            _, decision = attempt(lambda: jail.check(ASKED_AS[case["call"]], args[0]))
        with watchdog():
            error, value = attempt(lambda: CALLS[case["call"]](jail, root, *args))
        kind = outcome(error)
        # "mkdir -p ." asks for nothing.
        if decision is not None and kind in {"ok", "denied"} and args[0] != ".":
            assert bool(decision) == (kind == "ok"), f"check says {decision}, the call {kind}"

        # The standing invariants.
        assert scene.around() == around, "the outside was changed"
        if not case.get("reads_secret"):
            assert SECRET not in text_of(value)
            assert planted or not holders_of(SECRET, scene.root), "the secret came in"
        if error is not None:
            assert_clean(error, scene, *[arg for arg in args if isinstance(arg, str)])
            if scene.root.exists() and case["call"] in CHANGES:
                assert names_in(scene.root, skip={".fsjail"}) == _without(before, ".fsjail"), (
                    "a refusal changed something"
                )

        # The canonical name: from the check, from a Target, and by what the call did.
        name = None
        if kind == "ok" and case.get("resolved"):
            name = target_name or _name_of(root, args[0], follow=True)
            if case["call"] == "mkdir_parents":  # its parents were missing before
                decision = None if name == "." else jail.check("mkdir", args[0])
            if decision is not None and case["call"] not in ON_THE_NAME:
                assert decision.resolved == name
            if case["call"] == "open_read" and where != "/proc":
                assert value == (scene.root / name).read_bytes()
            if case["call"] in {"open_write", "write_atomic"}:
                assert (scene.root / name).read_bytes() == b"WRITTEN"
        for path in case.get("after", {}).get("exists", []):
            assert os.path.lexists(scene.base / path), f"{path} is gone"
        for path in case.get("after", {}).get("absent", []):
            assert not os.path.lexists(scene.base / path), f"{path} is still there"
        excluded = case.get("after", {}).get("result_excludes")
        assert excluded is None or excluded not in text_of(value)
        tree = _without(names_in(scene.root), ".fsjail") if scene.root.exists() else {}
        shown = "" if case["call"] in CHANGES else text_of(value).replace(str(scene.base), "{BASE}")
        return Answer(kind, name, shown, _portable(tree, scene))
    finally:
        root.close()
        jail.close()


def _name_of(root: Root, path: str, *, follow: bool) -> str | None:
    """The canonical name of a path, or None where it cannot be resolved."""
    error, target = attempt(lambda: root.resolve(root.parse(path), follow=follow))
    if error is not None:
        return None
    with target:
        return target.name


def _without(tree: dict[str, tuple[object, ...]], top: str) -> dict[str, tuple[object, ...]]:
    return {name: facts for name, facts in tree.items() if name != top and not name.startswith(top + "/")}


def _portable(tree: dict[str, tuple[object, ...]], scene: Scene) -> dict[str, tuple[object, ...]]:
    """Write link texts without the scene's own path, so that two scenes can be compared."""
    return {
        name: tuple(
            fact.replace(str(scene.base), "{BASE}") if isinstance(fact, str) else fact for fact in facts
        )
        for name, facts in tree.items()
    }


@pytest.mark.parametrize("case", CALM, ids=lambda case: case["id"])
def test_path_case(case, tmp_path, monkeypatch):
    nobody = "needs-nonroot" in case.get("tags", [])
    answers = []
    for resolver in RESOLVERS:
        pick_resolver(monkeypatch, resolver)
        answers.append(run(case, tmp_path / resolver, nobody=nobody and os.getuid() == 0))
    first, second = answers
    assert first == second, "the resolvers differ"
    wanted = OURS.get(case["id"]) or {case["expect"], *case.get("accept", [])}
    assert first.kind in wanted, case["why"]
    if first.kind == "ok" and case.get("resolved") is not None:
        assert first.name == case["resolved"]


@pytest.mark.parametrize("resolver", RESOLVERS)
def test_missing_root(tmp_path, monkeypatch, resolver):
    """The one case of `open_root`: no jail on a root that is not there, and none is made."""
    pick_resolver(monkeypatch, resolver)
    (case,) = [case for case in CASES if case["call"] == "open_root"]
    scene = make_scene(tmp_path)
    error, _ = attempt(lambda: Jail(scene.fill(case["args"][0]), state=scene.state))
    assert outcome(error) == case["expect"]
    assert not (scene.base / "nope").exists()


def test_no_case_is_left_out():
    left = {case["call"] for case in CASES} - set(CALLS) - {"open_root"}
    assert not left
    assert len(CALM) > 200
    assert set(OURS) <= {case["id"] for case in CASES}


@pytest.mark.parametrize("resolver", RESOLVERS)
def test_move_does_not_overwrite_unless_asked(tmp_path, monkeypatch, resolver):
    """Case mv-003 without `overwrite=True`."""
    pick_resolver(monkeypatch, resolver)
    scene = make_scene(tmp_path)
    (scene.root / "f").write_text("F")
    (scene.root / "h").write_text("old")
    with Jail(scene.root, Policy.workspace(), state=scene.state) as jail:
        error, _ = attempt(lambda: jail.move("f", "h"))
    assert outcome(error) == "exists"
    assert (scene.root / "f").read_text() == "F"
    assert (scene.root / "h").read_text() == "old"


def test_the_walk_never_asks_openat2(tmp_path, monkeypatch):
    """FSJAIL_RESOLVER=walk means it; otherwise the comparison above would compare a thing with itself."""
    from fsjail import _root

    asked = []
    real = _root.openat2
    monkeypatch.setattr(_root, "openat2", lambda *args: asked.append(args) or real(*args))
    scene = make_scene(tmp_path)
    (scene.root / "f").write_text("F")
    for resolver in RESOLVERS:
        pick_resolver(monkeypatch, resolver)
        asked.clear()
        with Jail(scene.root, state=scene.state) as jail:
            assert jail.read_text("f") == "F"
            jail.listdir(".")
            list(jail.walk("."))
            jail.glob("*")
            list(jail.grep("F"))
        if resolver == "walk":
            assert not asked


def test_out_of_bounds_has_its_errno(tmp_path):
    scene = make_scene(tmp_path)
    with Jail(scene.root, state=scene.state) as jail, pytest.raises(OutOfBounds) as caught:
        jail.read_text("../outside/secret")
    assert caught.value.errno == errno.EXDEV
    assert caught.value.filename == "../outside/secret"
