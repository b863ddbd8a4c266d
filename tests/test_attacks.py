"""One attack table times every operation.

Each attack plants its scene and names one protected file, folder or free name by a path that an agent could
give. Each operation comes with what plain Python would do. A row first proves that the attack works: plain
Python reads the secret or changes what is protected. Then the jail must refuse the same request on both
resolvers: nothing changes, nothing is told.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from _attackers import (
    RESOLVERS,
    SECRET,
    Scene,
    assert_clean,
    attempt,
    holders_of,
    make_scene,
    names_in,
    outcome,
    pick_resolver,
    snapshot,
    text_of,
    watchdog,
)
from fsjail import AccessDenied, Jail, OutOfBounds, Policy, PolicyDenied, Rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ALL = Rules(allow=["*"])
OPEN = Policy(write=ALL, presets=())  # what is refused under it is refused by the root alone
PRIVATE = Policy(read=Rules(deny=["private/", "caf\u00e9/"]), write=ALL, presets=())
PRESETS = Policy(write=ALL)


# -- attacks -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attack:
    """A way to name what is protected.

    Attributes:
        plant: builds the scene.
        file, folder, new: paths of a protected file, a protected folder and a free protected name; None where
            the attack cannot name one.
        protected: what must not change, relative to BASE; "" is everything in BASE but the root.
        links_end: the paths end at a link, so operations on the name itself are no attack.
        reads: reading is refused too (write rules protect from change only).
        error: the error wanted.
    """

    id: str
    plant: Callable[[Scene], None]
    file: str | None = None
    folder: str | None = None
    new: str | None = None
    policy: Policy = OPEN
    protected: tuple[str, ...] = ("",)
    links_end: bool = False
    reads: bool = True
    error: type[AccessDenied] = OutOfBounds


def nothing(_scene: Scene) -> None:
    pass


def links(**texts: str) -> Callable[[Scene], None]:
    """Plant links in the root; "__" in a name stands for "/"."""

    def plant(scene: Scene) -> None:
        for name, text in texts.items():
            os.symlink(scene.fill(text), scene.root / name.replace("__", "/"))

    return plant


def secrets(folder: str, file: str, *more: Callable[[Scene], None]) -> Callable[[Scene], None]:
    """Plant a protected folder inside the root, with a secret in it."""

    def plant(scene: Scene) -> None:
        (scene.root / folder).mkdir(parents=True, exist_ok=True)
        (scene.root / folder / file).write_text(SECRET)
        for each in more:
            each(scene)

    return plant


def sibling(scene: Scene) -> None:
    made = scene.base / "root-sibling"
    made.mkdir()
    (made / "secret").write_text(SECRET)


def descriptor_link(scene: Scene) -> None:
    """A link to /proc/self/fd/N, where this process holds the outside open: a magic link opens it again."""
    fd = os.open(scene.outside, os.O_RDONLY)
    os.symlink(f"/proc/self/fd/{fd}", scene.root / "m")


def own_folder(scene: Scene) -> None:
    """The jail's own folder as the jail makes it, with a secret to find in it."""
    (scene.root / "gone").write_text("gone")
    with Jail(scene.root, OPEN, state=scene.state, durability="none") as jail:
        jail.delete("gone")
    (scene.root / ".fsjail" / "planted").mkdir()
    (scene.root / ".fsjail" / "planted" / "secret").write_text(SECRET)
    os.symlink(".fsjail", scene.root / "s")


ATTACKS = [
    Attack("dot-dot", nothing, "../outside/secret", "../outside/dir", "../outside/new"),
    Attack(
        "dot-dot-deep", nothing, "d/e/../../../outside/secret", "d/e/../../../outside", "d/../../outside/new"
    ),
    Attack("absolute", nothing, "{OUT}/secret", "{OUT}", "{OUT}/new"),
    Attack(
        "absolute-prefix",
        nothing,
        "{ROOT}/../outside/secret",
        "{ROOT}/../outside",
        "{ROOT}/d/../../outside/new",
    ),
    Attack("absolute-sibling", sibling, "{ROOT}-sibling/secret", "{ROOT}-sibling", "{ROOT}-sibling/new"),
    Attack("link-to-file", links(l="../outside/secret"), "l", links_end=True),
    Attack("link-to-file-absolute", links(d__l="{OUT}/secret"), "d/l", links_end=True),
    Attack("link-to-folder", links(l="../outside"), folder="l", links_end=True),
    Attack("through-link", links(l="../outside"), "l/secret", "l/dir", "l/new"),
    Attack("through-link-dots", links(l="../outside"), "l/./secret", "l/../outside/dir", "l//new"),
    Attack("through-link-absolute", links(d__l="{OUT}"), "d/l/secret", "d/l/dir", "d/l/new"),
    Attack(
        "through-link-to-parent", links(up=".."), "up/outside/secret", "up/outside", "d/../up/outside/new"
    ),
    Attack("through-prefix-link", links(l="{ROOT}/../outside"), "l/secret", "l/dir", "l/new"),
    Attack("link-dangling", links(l="../outside/new"), new="l", links_end=True),
    Attack("link-chain", links(a="d/b", d__b="../c", c="../outside"), "a/secret", "a/dir", "a/new"),
    Attack("link-chain-end", links(a="d/b", d__b="../c", c="../outside/secret"), "a", links_end=True),
    Attack("magic-root", links(m="/proc/self/root"), "m{OUT}/secret", "m{OUT}", "m{OUT}/new"),
    Attack("magic-descriptor", descriptor_link, "m/secret", "m/dir", "m/new"),
    Attack(
        "preset-secret",
        secrets(".ssh", "id_rsa"),
        ".ssh/id_rsa",
        ".ssh",
        ".ssh/new",
        PRESETS,
        ("root/.ssh",),
        error=PolicyDenied,
    ),
    Attack(
        "deny-rule",
        secrets("private", "key"),
        "private/key",
        "private",
        "private/new",
        PRIVATE,
        ("root/private",),
        error=PolicyDenied,
    ),
    Attack(
        "deny-rule-dots",
        secrets("private", "key"),
        "d/../private//key",
        "./private/.",
        "d/e/../../private/new",
        PRIVATE,
        ("root/private",),
        error=PolicyDenied,
    ),
    Attack(
        "deny-rule-absolute",
        secrets("private", "key"),
        "{ROOT}/private/key",
        "{ROOT}/private",
        "{ROOT}/private/new",
        PRIVATE,
        ("root/private",),
        error=PolicyDenied,
    ),
    Attack(
        "case-fold",
        secrets("PRIVATE", "key"),
        "PRIVATE/key",
        "PRIVATE",
        "PRIVATE/new",
        PRIVATE,
        ("root/PRIVATE",),
        error=PolicyDenied,
    ),
    Attack(
        "unicode-form",
        secrets("cafe\u0301", "key"),
        "cafe\u0301/key",
        "cafe\u0301",
        "cafe\u0301/new",
        PRIVATE,
        ("root/cafe\u0301",),
        error=PolicyDenied,
    ),
    Attack(
        "link-to-denied-file",
        secrets("private", "key", links(l="private/key")),
        "l",
        policy=PRIVATE,
        protected=("root/private",),
        links_end=True,
        error=PolicyDenied,
    ),
    Attack(
        "link-to-denied-folder",
        secrets("private", "key", links(l="private")),
        "l/key",
        "l/.",
        "l/new",
        PRIVATE,
        ("root/private",),
        error=PolicyDenied,
    ),
    Attack(
        "link-dangling-to-denied",
        secrets("private", "key", links(l="private/new")),
        new="l",
        policy=PRIVATE,
        protected=("root/private",),
        links_end=True,
        error=PolicyDenied,
    ),
    Attack(
        "own-folder",
        own_folder,
        ".fsjail/planted/secret",
        ".fsjail/planted",
        ".fsjail/planted/new",
        protected=("root/.fsjail/planted",),
        error=PolicyDenied,
    ),
    Attack(
        "own-folder-by-link",
        own_folder,
        "s/planted/secret",
        "s/planted",
        "s/planted/new",
        protected=("root/.fsjail/planted",),
        error=PolicyDenied,
    ),
    Attack(
        "own-folder-elsewhere",
        secrets("d/.FSJAIL", "secret"),
        "d/.FSJAIL/secret",
        "d/.FSJAIL",
        "d/.FSJAIL/new",
        protected=("root/d/.FSJAIL",),
        error=PolicyDenied,
    ),
    Attack(
        "git-hooks",
        secrets(".git/hooks", "update"),
        ".git/hooks/update",
        ".git/hooks",
        ".git/hooks/pre-commit",
        PRESETS,
        ("root/.git",),
        reads=False,
        error=PolicyDenied,
    ),
    Attack(
        "read-only",
        secrets("src", "key"),
        "src/key",
        "src",
        "src/new",
        Policy(),
        ("root/src",),
        reads=False,
        error=PolicyDenied,
    ),
    Attack(
        "link-to-not-allowed",
        secrets("lib", "key", links(d__l="../lib")),
        "d/l/key",
        "d/l/.",
        "d/l/new",
        Policy(write=Rules(allow=["d/", "f", "g"]), presets=()),
        ("root/lib",),
        reads=False,
        error=PolicyDenied,
    ),
]


# -- operations ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Op:
    """One operation: what the jail is asked and what plain Python does.

    Attributes:
        takes: which path of an attack it gets: "file", "folder" or "new".
        ask: calls the jail.
        plain: the same with plain Python, on a host path; its other argument is the root.
        on_name: a link at the path's end is itself concerned, not what it points to.
        creates: plain Python does not create through a dangling link here.
        answers: what the jail may answer instead of an error.
    """

    id: str
    takes: str
    ask: Callable[[Jail, str], object]
    plain: Callable[[Path, str], object]
    changes: bool = True
    on_name: bool = False
    answers: tuple[object, ...] = field(default=())


def _put(path: str, mode: str = "w") -> None:
    with open(path, mode) as file:
        file.write("EVIL")


def _replace(path: str) -> None:
    _put(path + "~")
    os.replace(path + "~", path)


def _with(jail: Jail, path: str, mode: str) -> object:
    with jail.open(path, mode) as file:
        return file.read() if mode.startswith("r") else file.write("EVIL")


def _update(jail: Jail, path: str) -> object:
    with jail.open(path, "r+") as file:
        return file.write("EVIL")


def _restore(jail: Jail, path: str, *, overwrite: bool = False) -> object:
    return jail.trash.restore(jail.trash.items()[0].id, to=path, overwrite=overwrite)


READS = [
    Op(
        "read_bytes",
        "file",
        lambda jail, path: jail.read_bytes(path),
        lambda _, path: Path(path).read_bytes(),
    ),
    Op(
        "read_range",
        "file",
        lambda jail, path: jail.read_bytes(path, offset=1, limit=3),
        lambda _, path: Path(path).read_bytes(),
    ),
    Op("read_text", "file", lambda jail, path: jail.read_text(path), lambda _, path: Path(path).read_text()),
    Op(
        "read_lines", "file", lambda jail, path: jail.read_lines(path), lambda _, path: Path(path).read_text()
    ),
    Op("open_r", "file", lambda jail, path: _with(jail, path, "r"), lambda _, path: Path(path).read_text()),
    Op(
        "open_rb", "file", lambda jail, path: _with(jail, path, "rb"), lambda _, path: Path(path).read_bytes()
    ),
    Op("stat", "file", lambda jail, path: jail.stat(path), lambda _, path: (os.stat(path), SECRET)[1]),
    Op(
        "exists",
        "file",
        lambda jail, path: jail.exists(path),
        lambda _, path: SECRET * os.path.exists(path),
        answers=(False,),
    ),
    Op(
        "is_file",
        "file",
        lambda jail, path: jail.is_file(path),
        lambda _, path: SECRET * os.path.isfile(path),
        answers=(False,),
    ),
    Op(
        "is_dir",
        "folder",
        lambda jail, path: jail.is_dir(path),
        lambda _, path: SECRET * os.path.isdir(path),
        answers=(False,),
    ),
    Op(
        "listdir",
        "folder",
        lambda jail, path: jail.listdir(path),
        lambda _, path: (os.listdir(path), SECRET)[1],
    ),
    Op(
        "walk",
        "folder",
        lambda jail, path: list(jail.walk(path)),
        lambda _, path: (os.listdir(path), SECRET)[1],
    ),
    Op(
        "glob",
        "folder",
        lambda jail, path: jail.glob("**", path),
        lambda _, path: (os.listdir(path), SECRET)[1],
    ),
    Op(
        "grep",
        "folder",
        lambda jail, path: list(jail.grep("S", path)),
        lambda _, path: (os.listdir(path), SECRET)[1],
    ),
    Op(
        "grep_file",
        "file",
        lambda jail, path: list(jail.grep("S", path)),
        lambda _, path: Path(path).read_text(),
    ),
    Op(
        "copy_from",
        "file",
        lambda jail, path: jail.copy(path, "d/got"),
        lambda root, path: shutil.copy(path, root / "got"),
    ),
    Op(
        "copy_folder_from",
        "folder",
        lambda jail, path: jail.copy(path, "d/got"),
        lambda root, path: (shutil.copytree(path, root / "got"), SECRET)[1],
    ),
]

WRITES = [
    Op("write_bytes", "file", lambda jail, path: jail.write_bytes(path, b"EVIL"), lambda _, path: _put(path)),
    Op("write_text", "file", lambda jail, path: jail.write_text(path, "EVIL"), lambda _, path: _put(path)),
    Op("write_new", "new", lambda jail, path: jail.write_text(path, "EVIL"), lambda _, path: _put(path)),
    Op(
        "write_parents",
        "new",
        lambda jail, path: jail.write_text(path + "/a/b", "EVIL", parents=True),
        lambda _, path: (Path(path, "a").mkdir(parents=True), _put(path + "/a/b")),
    ),
    Op("append", "file", lambda jail, path: jail.append_text(path, "EVIL"), lambda _, path: _put(path, "a")),
    Op(
        "append_new",
        "new",
        lambda jail, path: jail.append_text(path, "EVIL"),
        lambda _, path: _put(path, "a"),
    ),
    Op("edit", "file", lambda jail, path: jail.edit(path, SECRET, "EVIL"), lambda _, path: _put(path, "r+")),
    Op(
        "edit_dry",
        "file",
        lambda jail, path: jail.edit(path, SECRET, "EVIL", dry_run=True),
        lambda _, path: _put(path, "r+"),
    ),
    Op("open_w", "file", lambda jail, path: _with(jail, path, "w"), lambda _, path: _put(path)),
    Op("open_w_new", "new", lambda jail, path: _with(jail, path, "w"), lambda _, path: _put(path)),
    Op("open_a", "file", lambda jail, path: _with(jail, path, "a"), lambda _, path: _put(path, "a")),
    Op("open_update", "file", _update, lambda _, path: _put(path, "r+")),
    Op(
        "open_x",
        "new",
        lambda jail, path: _with(jail, path, "x"),
        lambda _, path: _put(path, "x"),
        on_name=True,
    ),
    Op("mkdir", "new", lambda jail, path: jail.mkdir(path), lambda _, path: os.mkdir(path), on_name=True),
    Op(
        "mkdir_parents",
        "new",
        lambda jail, path: jail.mkdir(path + "/a/b", parents=True),
        lambda _, path: os.makedirs(path + "/a/b"),
        on_name=True,
    ),
    Op(
        "copy_to",
        "new",
        lambda jail, path: jail.copy("f", path),
        lambda root, path: shutil.copy(root / "f", path),
        on_name=True,
    ),
    Op(
        "copy_over",
        "file",
        lambda jail, path: jail.copy("f", path, overwrite=True),
        lambda root, path: shutil.copy(root / "f", path),
        on_name=True,
    ),
    Op(
        "copy_folder_to",
        "new",
        lambda jail, path: jail.copy("d/e", path),
        lambda root, path: shutil.copytree(root / "d/e", path),
        on_name=True,
    ),
    Op(
        "move_from",
        "file",
        lambda jail, path: jail.move(path, "d/got"),
        lambda root, path: os.rename(path, root / "d/got"),
        on_name=True,
    ),
    Op(
        "move_folder_from",
        "folder",
        lambda jail, path: jail.move(path, "d/got"),
        lambda root, path: os.rename(os.path.realpath(path), root / "d/got"),
        on_name=True,
    ),
    Op(
        "move_to",
        "new",
        lambda jail, path: jail.move("f", path),
        lambda root, path: os.rename(root / "f", path),
        on_name=True,
    ),
    Op(
        "move_over",
        "file",
        lambda jail, path: jail.move("f", path, overwrite=True),
        lambda root, path: os.rename(root / "f", path),
        on_name=True,
    ),
    Op(
        "move_folder_to",
        "new",
        lambda jail, path: jail.move("d/e", path),
        lambda root, path: os.rename(root / "d/e", path),
        on_name=True,
    ),
    Op("delete", "file", lambda jail, path: jail.delete(path), lambda _, path: os.unlink(path), on_name=True),
    Op(
        "delete_folder",
        "folder",
        lambda jail, path: jail.delete(path),
        lambda _, path: shutil.rmtree(os.path.realpath(path)),
        on_name=True,
    ),
    Op("restore_to", "new", _restore, lambda root, path: os.rename(root / "f", path), on_name=True),
    Op(
        "restore_over",
        "file",
        lambda jail, path: _restore(jail, path, overwrite=True),
        lambda root, path: os.rename(root / "f", path),
        on_name=True,
    ),
]

CHANGING = {op.id for op in WRITES}
OPS = [*READS, *WRITES]

CHECKS = {
    "read_bytes": "read",
    "listdir": "list",
    "write_new": "write",
    "edit": "edit",
    "mkdir": "mkdir",
    "delete": "delete",
}


def rows() -> Iterator[Any]:
    for attack in ATTACKS:
        for op in OPS:
            if getattr(attack, op.takes) is None or (attack.links_end and op.on_name):
                continue
            if op.id == "write_parents" and attack.links_end:
                continue
            if not attack.reads and op.id not in CHANGING:
                continue
            yield pytest.param(attack, op, id=f"{attack.id}-{op.id}")


def prepare(folder: Path, attack: Attack) -> Scene:
    scene = make_scene(folder)
    (scene.root / "d" / "e").mkdir(parents=True)
    (scene.root / "f").write_text("F")
    (scene.root / "g").write_text("G")
    (scene.outside / "dir" / "inner").write_text(SECRET)
    attack.plant(scene)
    return scene


def guarded(scene: Scene, attack: Attack) -> dict[str, object]:
    """Photograph what is protected."""
    return {
        path: (snapshot(scene.base / path) if (scene.base / path).exists() else None)
        if path
        else scene.around()
        for path in attack.protected
    }


def tidy(scene: Scene) -> None:
    """Close the descriptor that a descriptor link points at."""
    with suppress(OSError):
        text = os.readlink(scene.root / "m")
        if text.startswith("/proc/self/fd/"):
            os.close(int(text.rpartition("/")[2]))


@pytest.mark.parametrize(("attack", "op"), list(rows()))
def test_attack_is_refused(attack, op, tmp_path, monkeypatch):
    # The proof: without a jail it works.
    scene = prepare(tmp_path / "plain", attack)
    path = scene.fill(getattr(attack, op.takes))
    before = guarded(scene, attack)
    value = op.plain(scene.root, os.path.join(scene.root, path))
    if op.id in CHANGING:
        assert guarded(scene, attack) != before, "the attack does not work: it proves nothing"
    else:
        stolen = text_of(value) + text_of(
            [Path(scene.root / name).read_text() for name in ("got",) if (scene.root / name).is_file()]
        )
        assert SECRET in stolen, "the attack does not work: it proves nothing"
    tidy(scene)

    answers = []
    for resolver in RESOLVERS:
        pick_resolver(monkeypatch, resolver)
        answers.append(refuse(prepare(tmp_path / resolver, attack), attack, op))
    assert answers[0] == answers[1], "the resolvers differ"


def refuse(scene: Scene, attack: Attack, op: Op) -> str:
    """Ask the jail; demand a refusal that tells and changes nothing."""
    path = scene.fill(getattr(attack, op.takes))
    planted, before, inside = holders_of(SECRET, scene.root), guarded(scene, attack), inner(scene)
    with Jail(scene.root, attack.policy, state=scene.state, durability="none") as jail:
        restores = op.id.startswith("restore")
        if restores:
            if not jail.policy.check("delete", "g"):
                pytest.skip("nothing can be deleted here, so nothing restored")
            jail.delete("g")
            inside = inner(scene)
        with watchdog():
            error, value = attempt(lambda: op.ask(jail, path))
        if error is None:
            assert value in op.answers, f"not refused: {value!r}"
        else:
            assert isinstance(error, attack.error), f"refused for another reason: {error!r}"
            assert_clean(error, scene, path)
            # Where nothing may be written, the first end of a move is refused before the second.
            sources = {"f", "d/e"} if attack.id == "read-only" and op.id.startswith("move") else set()
            assert error.filename in {path, path + "/a/b", *sources}
        if op.id in CHECKS:
            decision = jail.check(CHECKS[op.id], path)
            assert not decision
            assert str(scene.base) not in str(decision).replace(path, "")
        denied = [event for event in jail.audit.events(denied=True) if event.decision == "deny"]
        assert denied or op.answers, "the refusal was not recorded"
    assert guarded(scene, attack) == before, "what is protected was changed"
    assert inner(scene) == inside, "a refusal changed something in the root"
    assert set(holders_of(SECRET, scene.root)) <= set(planted), "the secret came in"
    tidy(scene)
    return outcome(error)


def inner(scene: Scene) -> dict[str, object]:
    """Photograph the root without the jail's own folder."""
    return names_in(scene.root, skip={".fsjail"})


# -- operations on a link's own name -------------------------------------------------------------------


@pytest.mark.parametrize("resolver", RESOLVERS)
@pytest.mark.parametrize(
    "attack", [attack for attack in ATTACKS if attack.links_end], ids=lambda attack: attack.id
)
def test_a_link_itself_can_be_handled(attack, resolver, tmp_path, monkeypatch):
    """Moving, replacing or deleting a link concerns the link: what it points to stays as it is."""
    pick_resolver(monkeypatch, resolver)
    path = attack.file or attack.folder or attack.new
    for number, call in enumerate(
        [
            lambda jail: jail.stat(path, follow_symlinks=False),
            lambda jail: jail.copy(path, "d/copy"),
            lambda jail: jail.copy("f", path, overwrite=True),
            lambda jail: jail.move("f", path, overwrite=True),
            lambda jail: jail.move(path, "d/moved"),
            lambda jail: jail.delete(path),
            lambda jail: jail.mkdir(path),
            lambda jail: jail.mkdir(path, exist_ok=True),
            lambda jail: jail.mkdir(path, parents=True, exist_ok=True),
            lambda jail: _with(jail, path, "x"),
        ]
    ):
        scene = prepare(tmp_path / str(number), attack)
        planted, before = holders_of(SECRET, scene.root), guarded(scene, attack)
        with Jail(scene.root, attack.policy, state=scene.state) as jail:
            error, value = attempt(lambda call=call, jail=jail: call(jail))
            assert SECRET not in text_of(value)
            if error is not None:
                assert_clean(error, scene, path)
        assert guarded(scene, attack) == before, f"call {number} changed what is protected"
        assert set(holders_of(SECRET, scene.root)) <= set(planted), f"call {number} brought the secret in"


@pytest.mark.parametrize("resolver", RESOLVERS)
def test_delete_and_undo_of_an_escaping_link(resolver, tmp_path, monkeypatch):
    pick_resolver(monkeypatch, resolver)
    attack = next(attack for attack in ATTACKS if attack.id == "link-to-folder")
    scene = prepare(tmp_path, attack)
    before = scene.around()
    with Jail(scene.root, OPEN, state=scene.state) as jail:
        change = jail.delete("l")
        assert not os.path.lexists(scene.root / "l")
        assert change.saved is not None
        assert change.saved.kind == "link"
        jail.trash.restore(change.saved.id)
        assert os.readlink(scene.root / "l") == "../outside"
    assert scene.around() == before


# -- patterns as a way out -----------------------------------------------------------------------------

PATTERNS = [
    "../*",
    "../**",
    "../outside/*",
    "**/../../outside/*",
    "l/*",
    "l/**",
    "**",
    "**/secret",
    "d/../l/*",
    "{OUT}/*",
    "{OUT}/**",
    "/**",
    "l/./*",
    "private/**",
    "**/key",
    ".fsjail/**",
    "**/planted/*",
]


@pytest.mark.parametrize("resolver", RESOLVERS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_show_nothing_from_outside(pattern, resolver, tmp_path, monkeypatch):
    """A pattern is no second way to name things: not out, not through links, not into denied folders."""
    pick_resolver(monkeypatch, resolver)
    scene = make_scene(tmp_path)
    own_folder(scene)
    secrets("private", "key", links(l="../outside", la="{OUT}", p="private"))(scene)
    (scene.root / "d").mkdir()
    (scene.root / "d" / "public").write_text("S public")
    shown = ""
    with Jail(scene.root, PRIVATE, state=scene.state) as jail:
        given = scene.fill(pattern)
        for call in (
            lambda: jail.glob(given),
            lambda: list(jail.grep("S", glob=given)),
            lambda: list(jail.grep("SECRET", glob=given, literal=True)),
        ):
            try:
                error, value = attempt(call)
            except ValueError as refused:  # a pattern that cannot work
                error, value = refused, None
            shown += text_of(value)
            if error is not None:
                assert str(scene.base) not in str(error).replace(given, "")
    for word in (SECRET, "secret", "key", "planted", "inner", str(scene.base)):
        assert word not in shown
    if pattern == "**":
        assert "d/public" in shown, "the search sees nothing at all"


# -- hard links ----------------------------------------------------------------------------------------

HARD_WRITES = [op for op in WRITES if op.takes == "file" and op.id not in {"edit_dry", "move_from"}]


@pytest.mark.parametrize("resolver", RESOLVERS)
@pytest.mark.parametrize("op", HARD_WRITES, ids=lambda op: op.id)
def test_hard_link_keeps_the_other_name(op, resolver, tmp_path, monkeypatch):
    """A file with a second name outside can be written, but only by replacing the name in the root."""
    pick_resolver(monkeypatch, resolver)
    scene = prepare(tmp_path, Attack("hard link", nothing))
    os.link(scene.outside / "secret", scene.root / "h")
    before = scene.around()
    if op.id in {"write_text", "append", "open_w", "open_a", "edit"}:  # the proof, on a scene of its own
        proof = prepare(tmp_path / "plain", Attack("hard link", nothing))
        os.link(proof.outside / "secret", proof.root / "h")
        op.plain(proof.root, str(proof.root / "h"))
        assert (proof.outside / "secret").read_text() != SECRET
    with Jail(scene.root, OPEN, state=scene.state) as jail:
        if op.id == "restore_over":
            jail.delete("g")
        error, _ = attempt(lambda: op.ask(jail, "h"))
    assert error is None or isinstance(error, AccessDenied), error
    assert scene.around() == before
    if error is None and (scene.root / "h").exists():
        assert not os.path.samefile(scene.root / "h", scene.outside / "secret")


# -- trees with something denied in them ---------------------------------------------------------------

TREE_OPS = {
    "move": lambda jail: jail.move("t", "u"),
    "move_below": lambda jail: jail.move("t/sub", "u"),
    "move_above": lambda jail: jail.move("top", "u"),
    "delete": lambda jail: jail.delete("t"),
    "delete_above": lambda jail: jail.delete("top"),
    "move_over": lambda jail: jail.move("t", "e", overwrite=True),
    "undo": lambda jail: jail.trash.restore("nothing", to="private/x"),
}


@pytest.mark.parametrize("resolver", RESOLVERS)
@pytest.mark.parametrize("op", TREE_OPS)
def test_tree_with_a_denied_name_is_refused_whole(op, resolver, tmp_path, monkeypatch):
    """Moving a folder away would take denied files out from under their rule."""
    pick_resolver(monkeypatch, resolver)
    scene = make_scene(tmp_path)
    for folder in ("t/sub/private", "top/t/private"):
        secrets(folder, "key")(scene)
    (scene.root / "e").mkdir()
    before = inner(scene)
    with Jail(scene.root, PRIVATE, state=scene.state) as jail:
        error, _ = attempt(lambda: TREE_OPS[op](jail))
        assert error is not None
        if op != "undo":
            assert isinstance(error, PolicyDenied), error
        assert_clean(error, scene)
        if op in {"move", "delete"}:
            decision = jail.check(op, "t", "u" if op == "move" else None)
            assert not decision
            assert "private" in decision.why or "private" in str(decision)
    assert inner(scene) == before


@pytest.mark.parametrize("resolver", RESOLVERS)
def test_new_names_are_judged_too(resolver, tmp_path, monkeypatch):
    """Moving an allowed tree so that its new names are denied is refused: nothing may be hidden there."""
    pick_resolver(monkeypatch, resolver)
    scene = make_scene(tmp_path)
    (scene.root / "t").mkdir()
    (scene.root / "t" / "hook").write_text("#!/bin/sh")
    (scene.root / "x.md").write_text("x")
    before = inner(scene)
    policy = Policy(write=Rules(allow=["*"], deny=["ci/hook", "*.lock"]), presets=())
    with Jail(scene.root, policy, state=scene.state) as jail:
        for call in (
            lambda: jail.move("t", "ci"),
            lambda: jail.copy("t", "ci"),
            lambda: jail.move("x.md", "uv.lock"),
            lambda: jail.copy("x.md", "UV.LOCK"),
        ):
            error, _ = attempt(call)
            assert isinstance(error, PolicyDenied), error
    assert inner(scene) == before


# -- what is refused looks the same whether it is there or not -----------------------------------------

PROBES = [op for op in OPS if op.takes == "file" and op.id not in {"restore_over", "stat"}]


@pytest.mark.parametrize("resolver", RESOLVERS)
@pytest.mark.parametrize(
    ("there", "missing"),
    [
        ("../outside/secret", "../outside/nope"),
        ("l/secret", "l/nope"),
        ("private/key", "private/nope"),
        ("p/key", "p/nope"),
        ("private/key/x", "private/nope/x"),
    ],
)
def test_no_existence_oracle(there, missing, resolver, tmp_path, monkeypatch):
    pick_resolver(monkeypatch, resolver)
    scene = prepare(tmp_path, Attack("oracle", secrets("private", "key", links(l="../outside", p="private"))))
    with Jail(scene.root, PRIVATE, state=scene.state) as jail:
        for op in PROBES:
            seen = []
            for path in (there, missing):
                error, value = attempt(lambda op=op, path=path: op.ask(jail, path))
                seen.append((type(error), re.sub("secret|key|nope", "NAME", str(error)), text_of(value)))
            assert seen[0] == seen[1], f"{op.id} tells whether the name exists"


# -- the root itself -----------------------------------------------------------------------------------

ROOT_NAMES = [".", "./", "d/..", "{ROOT}", "{ROOT}/", "d/../.", "self"]


@pytest.mark.parametrize("resolver", RESOLVERS)
@pytest.mark.parametrize("name", ROOT_NAMES)
def test_the_root_itself_stays(name, resolver, tmp_path, monkeypatch):
    """However it is spelled, the root is never deleted, moved, copied over or replaced."""
    pick_resolver(monkeypatch, resolver)
    scene = prepare(tmp_path, Attack("root", links(self=".")))
    before, path = inner(scene), scene.fill(name)
    with Jail(scene.root, OPEN, state=scene.state) as jail:
        calls = [
            lambda: jail.write_text(path, "EVIL"),
            lambda: jail.edit(path, "a", "b"),
            lambda: _with(jail, path, "w"),
        ]
        if name != "self":  # a link to the root may itself be deleted, moved and replaced
            calls += [
                lambda: jail.delete(path),
                lambda: jail.move(path, "d/x"),
                lambda: jail.move("d/e", path, overwrite=True),
                lambda: jail.move("f", path, overwrite=True),
                lambda: jail.copy("f", path, overwrite=True),
                lambda: jail.copy("d", path, overwrite=True),
                lambda: jail.mkdir(path),
            ]
        for call in calls:
            error, _ = attempt(call)
            assert error is not None
            assert_clean(error, scene, path)
    assert inner(scene) == before
    assert scene.root.is_dir()


@pytest.mark.parametrize("resolver", RESOLVERS)
def test_a_swapped_root_path_changes_nothing(resolver, tmp_path, monkeypatch):
    """The root is held open: another folder under its path is not the root."""
    pick_resolver(monkeypatch, resolver)
    scene = prepare(tmp_path, Attack("swap", nothing))
    (scene.outside / "f").write_text(SECRET)
    with Jail(scene.root, OPEN, state=scene.state) as jail:
        os.rename(scene.root, scene.base / "away")
        os.rename(scene.outside, scene.root)
        before = snapshot(scene.root)
        assert (scene.root / "f").read_text() == SECRET  # the proof: a jail that goes by paths reads this
        assert jail.read_text("f") == "F"
        assert jail.read_text(str(scene.root / "f")) == "F"
        assert [hit.text for hit in jail.grep("F", "f")] == ["F"]
        jail.write_text("new", "N")
        jail.delete("f")
        jail.mkdir("made")
        assert "secret" not in [entry.name for entry in jail.listdir()]
        assert "secret" not in jail.glob("**")
    assert snapshot(scene.root) == before
    assert (scene.base / "away" / "new").read_text() == "N"
