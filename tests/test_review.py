"""What an adversarial review found: each row was a hole, or a way to make the host unavailable."""

from __future__ import annotations

import errno
import os
import stat
import tracemalloc
from pathlib import Path

import pytest

from _attackers import watchdog
from fsjail import Jail, Limits, Policy, PolicyDenied, Rules, TrashError
from fsjail._errors import AccessDenied, LimitExceeded, Moved

OPEN = Policy(write=Rules(allow=["*"]))


@pytest.fixture
def root(base) -> Path:
    return base / "root"


@pytest.fixture
def make(root, base):
    made: list[Jail] = []

    def factory(policy: Policy = OPEN, **options: object) -> Jail:
        made.append(Jail(root, policy, state=base / "state", **options))  # type: ignore[arg-type]
        return made[-1]

    yield factory
    for jail in made:
        jail.close()


# ── names off the allow list: the same answer, there or not, whatever asks ─────────────────────────

ASKS = {
    "read": lambda jail, path: jail.read_text(path),
    "lines": lambda jail, path: jail.read_lines(path),
    "open": lambda jail, path: jail.open(path),
    "stat": lambda jail, path: jail.stat(path),
    "list": lambda jail, path: jail.listdir(path),
    "walk": lambda jail, path: list(jail.walk(path)),
    "glob": lambda jail, path: jail.glob("*", path),
    "grep": lambda jail, path: list(jail.grep("", path)),
}


@pytest.mark.parametrize("resolver", ["openat2", "walk"])
@pytest.mark.parametrize("ask", ASKS)
def test_names_off_the_allow_list_answer_alike(ask, resolver, root, make, monkeypatch):
    monkeypatch.setenv("FSJAIL_RESOLVER", resolver)
    (root / "docs").mkdir()
    (root / "docs/a.md").write_text("shown")
    (root / "docs/key.txt").write_text("TOP")
    (root / "secret.txt").write_text("TOP")
    (root / "empty").mkdir()
    (root / "private").mkdir()
    (root / "private/x").write_text("TOP")
    jail = make(Policy(read=Rules(allow=["*.md", "docs/**/*.md"])))
    for path in (
        "secret.txt",
        "missing.txt",
        "docs/key.txt",
        "docs/none.txt",
        "empty",
        "none/x",
        "private/x/y",
    ):
        with pytest.raises(PolicyDenied) as caught:
            ASKS[ask](jail, path)
        assert caught.value.decision is not None
        assert caught.value.decision.why == "read.allow: no rule", path
        assert not jail.exists(path)
    assert jail.read_text("docs/a.md") == "shown"


def test_a_directory_that_dots_leave_again_tells_nothing(root, make):
    (root / "pub").mkdir()
    (root / "pub/f").write_text("x")
    (root / "private").mkdir()
    (root / "private/x").write_text("TOP")
    jail = make(Policy(read=Rules(allow=["/pub/"])))
    assert jail.read_text("pub/../pub/f") == "x"
    for path in ("private/../pub/f", "privat/../pub/f", "private/x/../../pub/f"):
        with pytest.raises(PolicyDenied):
            jail.read_text(path)


# ── content ────────────────────────────────────────────────────────────────────────────────────


def test_restore_over_a_tree_is_judged_like_its_deletion(root, make):
    (root / "d").mkdir()
    (root / "d/.env").write_text("SECRET")
    jail = make()
    jail.write_text("e", "n")
    kept = jail.delete("e").saved
    assert kept is not None
    with pytest.raises(PolicyDenied, match=r"d/\.env"):
        jail.trash.restore(kept.id, to="d", overwrite=True)
    assert (root / "d/.env").read_text() == "SECRET"


def test_what_was_denied_since_is_not_restored_under_another_name(root, make):
    jail = make()
    jail.mkdir("a")
    jail.write_text("a/key", "TOP")
    kept = jail.delete("a").saved
    assert kept is not None
    strict = make(Policy(read=Rules(deny=["/a/key"]), write=Rules(allow=["*"])))
    with pytest.raises(PolicyDenied):
        strict.trash.restore(kept.id, to="b")
    assert not (root / "b").exists()


@pytest.mark.parametrize("place", ["..", "../..", "a/..", "", "."])
def test_a_planted_mark_removes_nothing_outside(place, root, base):
    token = "0123456789abcdef01234567"
    for folder in (base, root, base.parent):
        (folder / f".fsjail-{token}").mkdir(exist_ok=True)
        (folder / f".fsjail-{token}/precious").write_text("x")
    (root / ".fsjail/stage").mkdir(parents=True)
    (root / ".fsjail/Trash/files").mkdir(parents=True)
    (root / f".fsjail/stage/{token}.beside").write_text(place)
    (root / ".fsjail/stage/victim.beside").write_text("..")
    with Jail(root, OPEN, state=base / "state") as jail:
        jail.trash.recover()
    assert (base / f".fsjail-{token}/precious").exists()
    assert (base.parent / f".fsjail-{token}/precious").exists()


def test_new_content_does_not_run_with_the_rights_of_the_old(root, make):
    (root / "s").write_text("old")
    os.chmod(root / "s", 0o6755)
    jail = make()
    jail.write_text("s", "#!new")
    assert stat.S_IMODE((root / "s").stat().st_mode) == 0o755
    os.chmod(root / "s", 0o4755)
    jail.copy("s", "t")
    assert stat.S_IMODE((root / "t").stat().st_mode) == 0o755
    jail.undo(jail.delete("s"))
    assert stat.S_IMODE((root / "s").stat().st_mode) == 0o4755, "what only moves keeps them"


def test_parents_that_dots_leave_again_are_not_made(root, make):
    jail = make(Policy(write=Rules(allow=["*.md"])))
    with pytest.raises(FileNotFoundError):
        jail.write_text("evil/../x.md", "1", parents=True)
    assert not (root / "evil").exists()


def test_the_root_is_not_copied_into_itself(root, make):
    (root / "f").write_text("x")
    with pytest.raises((ValueError, AccessDenied)):
        make().copy(".", "sub")
    assert not (root / "sub").exists()


def test_a_foreign_folder_is_not_taken_for_ours(root, base):
    if os.getuid() != 0:
        pytest.skip("only root can make a folder of somebody else")
    (root / ".fsjail").mkdir()
    os.chown(root / ".fsjail", 65534, 65534)
    (root / "f").write_text("old")
    with Jail(root, OPEN, state=base / "state") as jail:
        with pytest.raises(TrashError, match="somebody else"):
            jail.write_text("f", "new")
        assert jail.read_text("f") == "old"


def test_a_folder_that_is_open_to_others_is_closed(root, make):
    (root / ".fsjail").mkdir(mode=0o755)
    jail = make()
    jail.write_text("f", "1")
    jail.write_text("f", "2")
    assert stat.S_IMODE((root / ".fsjail").stat().st_mode) == 0o700


def test_check_answers_while_names_are_swapped(root, make, monkeypatch):
    (root / "f").write_text("x")
    jail = make()
    calls: list[int] = []
    real = jail._settle

    def moving(*arguments: object, **options: object) -> object:
        calls.append(1)
        if len(calls) < 3:
            raise Moved
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(jail, "_settle", moving)
    assert jail.check("read", "f")
    assert len(calls) == 3
    monkeypatch.setattr(jail, "_settle", lambda *_, **__: (_ for _ in ()).throw(Moved))
    assert jail.check("read", "f"), "the names decide when the disk cannot be held still"


# ── what must not take the host down ────────────────────────────────────────────────────────────


def test_a_deep_tree_can_be_deleted_listed_restored_and_purged(root, make):
    jail = make(durability="none")
    deep = "/".join(["a"] * 1500)
    jail.mkdir(deep, parents=True)
    kept = jail.delete("a").saved
    assert kept is not None
    with watchdog(60):
        assert [item.path for item in jail.trash.items()] == ["a"]
        assert jail.trash.restore(kept.id) == "a"
        with pytest.raises(OSError, match="deep"):
            jail.copy("a", "b")
        jail.delete("a")
        assert len(jail.trash.purge(older_than_days=0)) == 1
    assert os.listdir(root / ".fsjail/stage") == []
    assert jail.trash.items() == []


def test_a_large_pattern_is_refused(root, make):
    (root / "f").write_text("q" * 1000)
    with pytest.raises(ValueError, match="too large"):
        list(make().grep("([a-q]?){900}x"))


def test_an_edit_is_measured_before_it_is_made(make):
    jail = make(limits=Limits(max_write_bytes=1 << 20))
    jail.write_text("f", "a" * 10_000)
    tracemalloc.start()
    try:
        with pytest.raises(LimitExceeded):
            jail.edit("f", "a", "x" * 60_000, count=10_000)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    assert jail.read_text("f") == "a" * 10_000


@pytest.mark.parametrize("call", ["edit", "append"])
def test_a_huge_file_is_not_read_into_memory(call, root, make):
    with open(root / "f", "wb") as file:
        file.truncate(1 << 40 if call == "edit" else 64 << 20)
    jail = make(limits=Limits(max_read_bytes=1 << 20), durability="none")
    tracemalloc.start()
    try:
        if call == "edit":
            with pytest.raises(LimitExceeded):
                jail.edit("f", "a", "b")
        else:
            jail.append_text("f", "end")
            assert jail.read_bytes("f", offset=64 << 20) == b"end"
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_a_diff_of_many_lines_is_one_hunk(make):
    jail = make(durability="none")
    lines = [f"{number % 110}\n" for number in range(40_000)]
    jail.write_text("f", "".join(lines))
    middle = "".join(lines[10_000:30_000])
    with watchdog(10):
        diff = jail.edit("f", "".join(lines[:9_000]) + "".join(lines[9_000:30_000]), middle).diff
    assert diff is not None
    assert diff.startswith("--- a/f\n+++ b/f\n@@ -")
    assert diff.count("\n@@") == 1


def test_one_line_in_many_is_a_small_diff(make):
    jail = make()
    jail.write_text("f", "".join(f"{number}\n" for number in range(20_000)))
    diff = jail.edit("f", "\n12345\n", "\nhere\n").diff
    assert diff == (
        "--- a/f\n+++ b/f\n@@ -12343,7 +12343,7 @@\n 12342\n 12343\n 12344\n"
        "-12345\n+here\n 12346\n 12347\n 12348\n"
    )


def test_long_names_do_not_fill_the_memory(make):
    jail = make()
    tracemalloc.start()
    try:
        for number in range(100):
            assert not jail.exists(f"{number:05}" + "/".join(["x" * 250] * 8) + "/" + "b/../" * 410)
        assert tracemalloc.get_traced_memory()[0] < 8 << 20
    finally:
        tracemalloc.stop()


def test_finding_a_line_takes_no_longer_than_allowed(root, make, monkeypatch):
    with open(root / "f", "wb") as file:
        file.truncate(1 << 40)
    with watchdog(20), pytest.raises(LimitExceeded) as caught:
        make(limits=Limits(max_seconds=0.2)).read_lines("f", 2, 1)
    assert caught.value.errno == errno.ETIMEDOUT


def test_long_lines_come_whole(root, make):
    (root / "f").write_bytes(b"first\n" + b"y" * (3 << 20) + b"\r\nlast")
    jail = make()
    assert [len(line) for line in jail.read_lines("f")] == [5, 3 << 20, 4]
    assert jail.read_lines("f", 3) == ["last"]
    assert jail.read_lines("f", 2, 1) == ["y" * (3 << 20)]


def test_an_offset_behind_the_end(make):
    jail = make()
    jail.write_text("f", "abc")
    assert jail.read_bytes("f", offset=2**63) == b""
    assert jail.read_bytes("f", offset=3) == b""


def test_undo_without_a_log_names_no_path(root, base):
    (base / "file").write_text("")
    with Jail(root, OPEN, state=base / "file/state") as jail:
        with pytest.raises(TrashError) as caught:
            jail.undo()
        assert str(base) not in str(caught.value)


# ── interrupts ─────────────────────────────────────────────────────────────────────────────────


def test_an_interrupt_behind_the_rename_leaves_a_whole_item(root, make, monkeypatch):
    (root / "f").write_text("old")
    jail = make()

    def interrupt(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fsjail._trash.same", interrupt)
        with pytest.raises(KeyboardInterrupt):
            jail.delete("f")
    assert not (root / "f").exists()
    assert [(item.path, item.why) for item in jail.trash.items()] == [("f", "deleted")]
    assert jail.trash.restore(jail.trash.items()[0].id) == "f"


def test_what_cannot_be_looked_at_keeps_its_info_file(root, make, monkeypatch):
    jail = make()
    jail.write_text("f", "old")
    jail.delete("f")
    assert jail._store.holds(jail.trash.items()[0].id)
    assert not jail._store.holds("no-such-item")
    real = os.stat

    def unreadable(path: object, **options: object) -> os.stat_result:
        if path == "strange":
            raise OSError(errno.EIO, "Input/output error")
        return real(path, **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(os, "stat", unreadable)
    assert jail._store.holds("strange")


@pytest.mark.parametrize("op", ["write", "new", "delete", "move", "mkdir"])
def test_a_required_log_that_cannot_be_written_refuses_before_anything_changes(op, root, base):
    (base / "file").write_text("")
    (root / "f").write_text("old")
    calls = {
        "write": lambda jail: jail.write_text("f", "new"),
        "new": lambda jail: jail.write_text("n", "new"),
        "delete": lambda jail: jail.delete("f"),
        "move": lambda jail: jail.move("f", "g"),
        "mkdir": lambda jail: jail.mkdir("d"),
    }
    with Jail(root, OPEN, state=base / "file/state", required=True) as jail:
        with pytest.raises(OSError, match="audit log") as caught:
            calls[op](jail)
        assert caught.value.errno == errno.EIO
        assert str(base) not in str(caught.value)
        assert jail.read_text("f") == "old"
    assert os.listdir(root) == ["f"]


def test_a_required_log_that_can_be_written_stands_in_no_way(root, make):
    jail = make(required=True)
    jail.write_text("f", "x")
    assert [event.op for event in jail.audit.events()] == ["write"]
    assert jail.audit.verify()


@pytest.mark.parametrize("name", ["logs", "a b", "[x]*?", "!odd", "back\\slash", "end "])
def test_a_state_folder_inside_the_root_is_out_of_reach_under_any_name(name, root):
    with Jail(root, OPEN, state=root / "var" / name) as jail:
        jail.write_text("f", "x")
        assert (root / "var" / name / "audit.jsonl").exists()
        for ask in (jail.read_text, jail.delete, jail.exists):
            path = f"var/{name}/audit.jsonl"
            if ask == jail.exists:
                assert not ask(path)
                continue
            with pytest.raises(PolicyDenied, match="builtin"):
                ask(path)
        with pytest.raises(PolicyDenied):
            jail.delete("var")
