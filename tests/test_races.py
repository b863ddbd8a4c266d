"""Live swap attackers: a second process exchanges names in a tight loop while the jail works on them.

Three swaps (the parent directory, the final name, the root's own path) against every operation. Each run must
see the jail both succeed and refuse, so that the raced moments were there; nothing of the outside may be read
or changed. First it is proven that the same attacker beats `Path.resolve()` + `is_relative_to()` + `open()`.

`make soak` runs the long form: at least a million raced operations.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from _attackers import (
    RESOLVERS,
    SECRET,
    Attacker,
    assert_clean,
    attempt,
    build,
    can_exchange,
    holders_of,
    make_scene,
    outcome,
    pick_resolver,
    snapshot,
    text_of,
)
from fsjail import Jail, JailError, Policy, Rules
from fsjail._root import Root
from test_paths import CALLS, policy_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OPEN = Policy(write=Rules(allow=["*"]), presets=())
SECONDS = 0.4  # of one scenario in the short form
SOAK_OPERATIONS = 1_100_000  # of all scenarios of the long form together
PATIENCE = 10.0  # seconds until a scenario has seen both a success and a refusal
MARK = "only-outside"  # a name that no listing of the jail may show

RACES: list[dict[str, Any]] = [
    case
    for case in json.loads((Path(__file__).parent / "data" / "paths.json").read_text())
    if "attacker" in case
]


@pytest.fixture(autouse=True)
def _needs_exchange(tmp_path):
    if why := can_exchange(tmp_path):
        pytest.skip(why)


# -- scenes --------------------------------------------------------------------------------------------


class Stage:
    """A scene under attack, and the means to mend it between two operations.

    `d` is the attacked directory and `x` the attacked file, each by the name the agent uses.
    """

    def __init__(self, folder: Path) -> None:
        self.scene = make_scene(folder)
        self.inside = -1

    def close(self) -> None:
        if self.inside >= 0:
            os.close(self.inside)

    def public(self, name: str, text: str = "public\n") -> None:
        """Make a file in the true inside directory, whatever its path is at the moment."""
        with suppress(FileExistsError):
            fd = os.open(
                name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=self.inside
            )
            os.write(fd, text.encode())
            os.close(fd)


def _fill_outside(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("f", "x", "e", "m", MARK):
        (folder / name).write_text(f"{SECRET} public\n")
    (folder / "sub").mkdir()
    (folder / "sub" / MARK).write_text(f"{SECRET} public\n")


def _fill_inside(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("f", "x", "e", "m"):
        (folder / name).write_text("public\n")
    (folder / "sub").mkdir()
    (folder / "sub" / "f").write_text("public\n")


class Parent(Stage):
    """A directory on the way is exchanged with a link to the outside."""

    d, x, e, f, m = "a/b/c", "a/b/c/x", "a/b/c/e", "a/b/c/f", "a/b/c/m"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        _fill_inside(self.scene.root / "a" / "b" / "c")
        _fill_outside(self.scene.outside / "c")
        os.symlink("../../outside", self.scene.root / "a" / "blink")
        self.inside = os.open(self.scene.root / "a" / "b" / "c", os.O_RDONLY)
        self.swap = (self.scene.root / "a" / "b", self.scene.root / "a" / "blink")

    def mend(self) -> None:
        for name in ("x", "m"):
            self.public(name)

    def outside(self) -> dict[str, object]:
        return self.scene.around()


class Final(Stage):
    """The last name is exchanged with a link to the outside: a file's, or a directory's for listings."""

    d, x, e, f, m = "d", "x", "x", "x", "x"

    def __init__(self, folder: Path, *, directory: bool) -> None:
        super().__init__(folder)
        root = self.scene.root
        _fill_inside(root / "d")
        _fill_outside(self.scene.outside / "c")
        (root / "x").write_text("public\n")
        os.symlink("../outside/c/f", root / "y")
        os.symlink("../outside/c", root / "dl")
        self.inside = os.open(root, os.O_RDONLY)
        self.swap = (root / "d", root / "dl") if directory else (root / "x", root / "y")

    def mend(self) -> None:
        """One of x and y is a file and the other the link; put back what an operation took away."""
        root = self.scene.root
        kinds = [self._kind(root / name) for name in ("x", "y")]
        if kinds == ["file", "file"]:  # the link was replaced by a write
            os.symlink("../outside/c/f", root / "y~")
            os.rename(root / "y~", root / "y")
        elif kinds == ["link", "link"]:
            (root / "x~").write_text("public\n")
            os.rename(root / "x~", root / "x")
        for name, other in (("x", "y"), ("y", "x")):
            if self._kind(root / name) == "":
                with suppress(FileExistsError):
                    if self._kind(root / other) == "link":
                        self.public(name)
                    else:
                        os.symlink("../outside/c/f", root / name)

    @staticmethod
    def _kind(path: Path) -> str:
        try:
            return "link" if path.is_symlink() else "file" if path.lstat() else ""
        except FileNotFoundError:
            return ""

    def outside(self) -> dict[str, object]:
        return self.scene.around()


class Top(Stage):
    """The path of the root itself is exchanged with the outside directory."""

    d, x, e, f, m = "c", "c/x", "c/e", "c/f", "c/m"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        root, outside = self.scene.root, self.scene.outside
        _fill_inside(root / "c")
        _fill_outside(outside / "c")
        for top in (root, outside):
            os.symlink(f"{root}/c/f", top / "la")  # an absolute link into the root: entered again by path?
        self.inside = os.open(root / "c", os.O_RDONLY)
        self.swap = (root, outside)
        self._outside = os.open(outside, os.O_RDONLY)

    def mend(self) -> None:
        for name in ("x", "m"):
            self.public(name)

    def outside(self) -> dict[str, object]:
        return snapshot(f"/proc/self/fd/{self._outside}/")

    def close(self) -> None:
        super().close()
        os.close(self._outside)


STAGES: dict[str, Callable[[Path, str], Any]] = {
    "parent": lambda folder, _op: Parent(folder),
    "final": lambda folder, op: Final(
        folder, directory=op in {"listdir", "glob", "grep", "walk", "copy_tree"}
    ),
    "root": lambda folder, _op: Top(folder),
}


# -- operations under attack ---------------------------------------------------------------------------


def _read(jail: Jail, stage: Any, number: int) -> object:
    match number % 4:
        case 0:
            return jail.read_bytes(stage.f)
        case 1:
            return jail.read_text(f"{stage.scene.root}/{stage.f}" if number % 8 == 1 else stage.f)
        case 2:
            with jail.open(stage.f, "rb") as file:
                return file.read()
        case _:
            return jail.read_text("la") if isinstance(stage, Top) else jail.read_lines(stage.f)


def _write(jail: Jail, stage: Any, number: int) -> object:
    match number % 3:
        case 0:
            return jail.write_text(stage.x, "public written\n")
        case 1:
            return jail.append_text(stage.x, "public more\n")
        case _:
            with jail.open(stage.x, "w") as file:
                return file.write("public opened\n")


def _edit(jail: Jail, stage: Any, _number: int) -> object:
    change = jail.edit(stage.e, "public", "public.", count=1)
    return change.diff


def _delete(jail: Jail, stage: Any, _number: int) -> object:
    return jail.delete(stage.x)


def _move(jail: Jail, stage: Any, number: int) -> object:
    if number % 2:
        return jail.move(stage.m, "got", overwrite=True)
    return jail.move("got", stage.m, overwrite=True)


def _copy(jail: Jail, stage: Any, number: int) -> object:
    if number % 2:
        return jail.copy(stage.f, "got", overwrite=True)
    return jail.copy("got", stage.m, overwrite=True)


def _mkdir(jail: Jail, stage: Any, number: int) -> object:
    return jail.mkdir(f"{stage.d}/made/{number}", parents=True)


def _listdir(jail: Jail, stage: Any, _number: int) -> object:
    return [entry.path for entry in jail.listdir(stage.d)]


def _walk(jail: Jail, stage: Any, number: int) -> object:
    return list(jail.walk(stage.d if number % 2 else "."))


def _glob(jail: Jail, stage: Any, number: int) -> object:
    return jail.glob("**/*", stage.d) if number % 2 else jail.glob(stage.d + "/**")


def _grep(jail: Jail, stage: Any, number: int) -> object:
    return list(jail.grep("public", stage.d if number % 2 else "."))


def _grep_file(jail: Jail, stage: Any, number: int) -> object:
    return list(jail.grep("public", stage.x if number % 2 else "."))


OPERATIONS: dict[str, Callable[[Jail, Any, int], object]] = {
    "read": _read,
    "write": _write,
    "edit": _edit,
    "delete": _delete,
    "move": _move,
    "copy": _copy,
    "mkdir": _mkdir,
    "listdir": _listdir,
    "walk": _walk,
    "glob": _glob,
    "grep": _grep,
    "grep_file": _grep_file,
}
SCENARIOS = [
    (swap, op)
    for swap in STAGES
    for op in OPERATIONS
    if (swap == "final" or op != "grep_file")  # elsewhere it is what grep does
    if (swap != "final" or op not in {"mkdir", "copy"})  # their attacked names are those of write and read
]


@contextmanager
def staged(folder: Path, swap: str, op: str) -> Iterator[Any]:
    stage = STAGES[swap](folder, op)
    try:
        yield stage
    finally:
        stage.close()


def answer(error: BaseException | None, value: object) -> str:
    """Name an answer; a success also by what went to the trash, which tells file and link apart."""
    saved = getattr(value, "saved", None)
    return outcome(error) if saved is None else f"ok, saved a {saved.kind}"


def raced(swap: str, op: str, seen: Counter[str]) -> bool:
    """Whether the raced moments were there: the operation met both sides of the swap."""
    if not any(kind.startswith("ok") for kind in seen):
        return False
    if swap == "root":
        return True  # the root is held: its swap cannot be met
    if swap == "final" and op in {"delete", "move"}:
        return {"ok, saved a file", "ok, saved a link"} <= set(seen)  # a link itself may be deleted and moved
    return "denied" in seen


def race(folder: Path, swap: str, op: str, *, seconds: float, most: int | None = None) -> Counter[str]:
    """Run one operation against one attacker; return how often it was answered how."""
    seen: Counter[str] = Counter()
    with staged(folder, swap, op) as stage:
        before = stage.outside()
        with Jail(stage.scene.root, OPEN, state=stage.scene.state, durability="none") as jail:
            if op in {"move", "copy"}:
                jail.write_text("got", "public\n")
            with Attacker("exchange", *stage.swap) as attacker:
                start, number, call = time.monotonic(), 0, OPERATIONS[op]
                while True:
                    number += 1
                    # Anything but a JailError or an OSError is a failure of the test.
                    error, value = attempt(lambda number=number: call(jail, stage, number))
                    kind = answer(error, value)
                    shown = text_of(value) + str(error)
                    assert SECRET not in shown, f"{swap}/{op}: the secret was read by operation {number}"
                    assert MARK not in shown, f"{swap}/{op}: the outside was listed by operation {number}"
                    if error is not None and kind not in seen:
                        assert_clean(error, stage.scene, str(stage.scene.root))
                    seen[kind] += 1
                    stage.mend()
                    lasted = time.monotonic() - start
                    if (
                        lasted > (seconds if raced(swap, op, seen) else max(seconds, PATIENCE))
                        or number == most
                    ):
                        break
                swaps = attacker.stop()
        assert stage.outside() == before, f"{swap}/{op}: the outside was changed, after {dict(seen)}"
        for top in {stage.scene.root, *stage.swap} - {stage.scene.outside}:
            if not top.is_symlink() and top.is_dir():
                assert not holders_of(SECRET, top), f"{swap}/{op}: the secret came in"
    assert swaps > 20, f"the attacker made only {swaps} swaps"
    return seen


@pytest.mark.parametrize("resolver", RESOLVERS)
@pytest.mark.parametrize(("swap", "op"), SCENARIOS)
def test_no_escape(swap, op, resolver, tmp_path, monkeypatch, record_property):
    pick_resolver(monkeypatch, resolver)
    seen = race(tmp_path / "race", swap, op, seconds=SECONDS)
    record_property("answers", dict(seen))
    assert raced(swap, op, seen), f"never met both sides: {dict(seen)}"


@pytest.mark.soak
@pytest.mark.parametrize("resolver", RESOLVERS)
@pytest.mark.parametrize(("swap", "op"), SCENARIOS)
def test_no_escape_soak(swap, op, resolver, tmp_path, monkeypatch, record_property):
    pick_resolver(monkeypatch, resolver)
    share = SOAK_OPERATIONS // (len(SCENARIOS) * len(RESOLVERS)) + 1
    total: Counter[str] = Counter()
    while sum(total.values()) < share:  # in rounds, so that the trash of a round stays small
        left = share - sum(total.values())
        total += race(tmp_path / f"race-{sum(total.values())}", swap, op, seconds=60.0, most=min(left, 3000))
    record_property("answers", dict(total))
    assert raced(swap, op, total), f"never met both sides: {dict(total)}"


# -- the proof that the attackers attack ---------------------------------------------------------------


def _naive_read(root: Path, path: str) -> str:
    """What most tools do: check the resolved path, then use it."""
    resolved = (root / path).resolve()
    if not resolved.is_relative_to(root):
        raise PermissionError(path)
    return Path(root / path).read_text()


def _naive_list(root: Path, path: str) -> str:
    resolved = (root / path).resolve()
    if not resolved.is_relative_to(root):
        raise PermissionError(path)
    return " ".join(os.listdir(root / path))


@pytest.mark.parametrize("op", ["read", "listdir"])
@pytest.mark.parametrize("swap", STAGES)
def test_the_attacker_beats_check_then_use(swap, op, tmp_path):
    with staged(tmp_path, swap, op) as stage:
        root, leaked, tries = stage.scene.root, "", 0
        with Attacker("exchange", *stage.swap):
            end = time.monotonic() + PATIENCE
            while not leaked and time.monotonic() < end:
                tries += 1
                with suppress(OSError):
                    text = _naive_read(root, stage.f) if op == "read" else _naive_list(root, stage.d)
                    leaked = text if SECRET in text or MARK in text else ""
        assert leaked, f"no leak in {tries} tries: the attacker proves nothing"


def test_the_attacker_stops_where_it_began(tmp_path):
    with staged(tmp_path, "root", "read") as stage:
        before = [os.stat(path).st_ino for path in stage.swap]
        for _ in range(5):
            with Attacker("exchange", *stage.swap) as attacker:
                time.sleep(0.01)
            assert attacker.swaps > 0
            assert attacker.swaps % 2 == 0
            assert [os.stat(path).st_ino for path in stage.swap] == before


# -- the race cases of paths.json ----------------------------------------------------------------------


@pytest.mark.parametrize("resolver", RESOLVERS)
@pytest.mark.parametrize("case", RACES, ids=lambda case: case["id"])
def test_race_case(case, resolver, tmp_path, monkeypatch):
    pick_resolver(monkeypatch, resolver)
    scene = make_scene(tmp_path)
    build(scene.base, case["setup"], scene.fill)
    plan = case["attacker"]
    if plan["op"] == "rename_exchange":
        mode, first, second = "exchange", plan["a"], plan["b"]
    else:
        mode, first, second = "bounce", plan["path"], plan["to"]
    before = scene.around()
    contents = snapshot(scene.outside, times=False)
    root, jail = Root(scene.root), Jail(scene.root, policy_of(case), state=scene.state)
    seen: Counter[str] = Counter()
    start = time.monotonic()
    with Attacker(mode, scene.base / first, scene.base / second):
        while time.monotonic() - start < SECONDS / 2 or (len(seen) < 2 and time.monotonic() - start < 1):
            error, value = attempt(lambda: CALLS[case["call"]](jail, root, *case["args"]))
            seen[outcome(error)] += 1
            shown = text_of(value)
            assert SECRET not in shown
            assert "DENIED" not in shown, "a denied file was read"
            if case["call"] == "walk":
                assert "secret" not in shown
            if (
                case["call"] == "remove_tree" and error is None
            ):  # make it anew, below the held directory's true place
                for top in ("root/a/b", "root/a/blink"):
                    if not (scene.base / top).is_symlink():
                        with suppress(OSError):
                            (scene.base / top / "c").mkdir()
                            break
            if case["call"] == "open_write" and error is None:
                with suppress(JailError, OSError):
                    jail.delete(case["args"][0])
    root.close()
    jail.close()
    if mode == "exchange":
        assert scene.around() == before
    else:  # the attacker itself came and went there
        assert snapshot(scene.outside, times=False) == contents
    assert not holders_of(SECRET, scene.root)
    assert set(seen) <= {*case["allow"], "notfound", "loop", "again"}, seen
    assert seen["ok"], seen


def test_a_retargeted_link_cannot_reach_a_denied_file(tmp_path):
    """The proof for race-015: judged by its text and opened by its name, the denied file is read."""
    (case,) = [case for case in RACES if case["id"] == "race-015"]
    scene = make_scene(tmp_path)
    build(scene.base, case["setup"], scene.fill)
    link, leaked = scene.root / "l", False
    with Attacker("exchange", link, scene.root / "l2"):
        end = time.monotonic() + PATIENCE
        while not leaked and time.monotonic() < end:
            if os.readlink(link) != "secret.txt":
                leaked = "DENIED" in link.read_text()
    assert leaked, "the attacker proves nothing"


# -- things that come and go ---------------------------------------------------------------------------


@pytest.mark.parametrize("resolver", RESOLVERS)
def test_a_name_that_comes_and_goes(resolver, tmp_path, monkeypatch):
    """A file that vanishes mid-call is an ordinary answer; a listing keeps everything else."""
    pick_resolver(monkeypatch, resolver)
    scene = make_scene(tmp_path)
    stable = {f"s{number}" for number in range(20)}
    for name in {*stable, "v"}:
        (scene.root / name).write_text("public\n")
    (scene.root / "w").mkdir()
    calls = {
        "read": lambda: jail.read_text("v"),
        "lines": lambda: jail.read_lines("v"),
        "stat": lambda: jail.stat("v"),
        "exists": lambda: jail.exists("v"),
        "write": lambda: jail.write_text("v", "public\n"),
        "append": lambda: jail.append_text("v", ""),
        "edit": lambda: jail.edit("v", "public\n", "public\n\n", count=1),
        "copy": lambda: jail.copy("v", "copied", overwrite=True),
        "check": lambda: jail.check("delete", "v"),
        "listdir": lambda: stable - {entry.name for entry in jail.listdir()},
        "walk": lambda: stable - set(next(iter(jail.walk()))[2]),
        "glob": lambda: stable - set(jail.glob("*")),
        "grep": lambda: stable - {hit.path for hit in jail.grep("public")},
    }
    seen: Counter[str] = Counter()
    with (
        Jail(scene.root, OPEN, state=scene.state) as jail,
        Attacker("bounce", scene.root / "v", scene.root / "w" / "v"),
    ):
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            for name, call in calls.items():
                error, value = attempt(call)
                seen[outcome(error)] += 1
                if name in {"listdir", "walk", "glob", "grep"}:
                    assert error is None, f"{name}: {error!r}"
                    assert not value, f"{name} lost {value}"
    assert set(seen) <= {"ok", "notfound", "exists", "EditError"}, seen
    assert seen["notfound"], seen


@pytest.mark.parametrize("op", ["delete", "move"])
@pytest.mark.parametrize("resolver", RESOLVERS)
def test_nothing_is_lost_when_names_come_and_go(op, resolver, tmp_path, monkeypatch):
    """Deleting or moving a name while another process renames it: the content is always somewhere."""
    pick_resolver(monkeypatch, resolver)
    scene = make_scene(tmp_path)
    (scene.root / "w").mkdir()
    with Jail(scene.root, OPEN, state=scene.state) as jail:
        for number in range(10):
            (scene.root / "v").write_text(f"content {number}.")
            with Attacker("bounce", scene.root / "v", scene.root / "w" / "v", seconds=5):
                for _ in range(20):
                    error, _ = attempt(
                        lambda: jail.delete("v") if op == "delete" else jail.move("v", "to", overwrite=True)
                    )
                    if error is None:
                        break
            assert holders_of(f"content {number}.", scene.root), f"round {number}: the content is gone"
            for name in ("v", "w/v"):
                (scene.root / name).unlink(missing_ok=True)
