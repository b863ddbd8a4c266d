"""Undo: of each operation, by change, by actor, by time, and of an undo."""

from __future__ import annotations

import errno
import os
import pickle
import re
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fsjail import Change, Jail, Policy, PolicyDenied, Rules, TrashError, _home

OPEN = Policy(write=Rules(allow=["*"]))


@pytest.fixture
def root(base) -> Path:
    folder = base / "root"
    (folder / "d").mkdir()
    (folder / "d/x").write_text("in d")
    (folder / "e").mkdir()
    (folder / "e/y").write_text("in e")
    (folder / "f").write_text("old")
    (folder / "g").write_text("other")
    (folder / "l").symlink_to("f")
    return folder


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
    return make()


def tree(root: Path) -> dict[str, object]:
    return {
        str(path.relative_to(root)): (
            os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else None
        )
        for path in sorted(root.rglob("*"))
        if ".fsjail" not in path.relative_to(root).parts
    }


def opened(jail: Jail) -> None:
    with jail.open("f", "a") as file:
        file.write("!")


OPERATIONS = {
    "write": lambda jail: jail.write_text("f", "new"),
    "create": lambda jail: jail.write_text("n", "new"),
    "append": lambda jail: jail.append_text("f", "new"),
    "append creates": lambda jail: jail.append_text("n", "new"),
    "edit": lambda jail: jail.edit("f", "old", "new"),
    "open": opened,
    "mkdir": lambda jail: jail.mkdir("n"),
    "copy": lambda jail: jail.copy("f", "n"),
    "copy onto": lambda jail: jail.copy("g", "f", overwrite=True),
    "copy tree": lambda jail: jail.copy("d", "n"),
    "copy tree onto": lambda jail: jail.copy("d", "e", overwrite=True),
    "move": lambda jail: jail.move("f", "n"),
    "move onto": lambda jail: jail.move("g", "f", overwrite=True),
    "move tree": lambda jail: jail.move("d", "n"),
    "move tree onto": lambda jail: jail.move("d", "e", overwrite=True),
    "move link": lambda jail: jail.move("l", "n"),
    "move link onto": lambda jail: jail.move("l", "f", overwrite=True),
    "delete": lambda jail: jail.delete("f"),
    "delete tree": lambda jail: jail.delete("d"),
    "delete link": lambda jail: jail.delete("l"),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("by", ["change", "last", "again"])
def test_undo_of_each_operation(name, by, jail, root, make):
    before = tree(root)
    change = OPERATIONS[name](jail)
    after = tree(root)
    assert after != before
    if by == "change" and change is not None:
        undone = jail.undo(change)
    elif by == "again":
        undone = make(actor="another").undo()  # what the log holds is enough
    else:
        undone = jail.undo()
    assert tree(root) == before
    assert undone
    assert all(isinstance(each, Change) for each in undone)
    for each in reversed(undone):  # and each undo can be undone
        jail.undo(each)
    assert tree(root) == after
    assert jail.audit.verify()


def test_undo_walks_back_step_by_step(jail, root):
    states = [tree(root)]
    for name in ("write", "append", "mkdir", "delete tree", "move onto"):
        OPERATIONS[name](jail)
        states.append(tree(root))
    for state in reversed(states[:-1]):
        jail.undo()
        assert tree(root) == state
    with pytest.raises(TrashError, match="nothing to undo"):
        jail.undo()
    assert tree(root) == states[0]


def test_after_an_undo_was_undone_the_change_is_the_last_again(jail, root):
    jail.write_text("n", "1")
    jail.write_text("n", "2")
    [undone] = jail.undo()
    jail.undo(undone)
    assert (root / "n").read_text() == "2"
    jail.undo()
    assert (root / "n").read_text() == "1"


def test_nothing_to_undo(jail, root):
    before = tree(root)
    for options in ({}, {"actor": "nobody"}, {"since": 0}, {"since": datetime.now(UTC)}):
        with pytest.raises(TrashError, match="nothing to undo"):
            jail.undo(**options)
    assert tree(root) == before


def test_a_change_that_is_none(jail):
    with pytest.raises(TrashError, match="cannot be undone"):
        jail.undo(Change("read", "f"))
    with pytest.raises(TrashError, match="nothing was saved"):
        jail.undo(Change("delete", "gone"))


def test_undo_by_actor(make, root, tmp_path):
    one, two = make(actor="one"), make(actor="two")
    before = tree(root)
    one.write_text("a", "1")
    two.write_text("b", "2")
    one.write_text("f", "by one")
    two.write_text("g", "by two")
    assert len(make().undo(actor="one")) == 2
    assert tree(root) == {**before, "b": "2", "g": "by two"}
    with pytest.raises(TrashError):
        make().undo(actor="one")
    make().undo(actor="two")
    assert tree(root) == before


@pytest.mark.parametrize("kind", ["datetime", "text", "seconds"])
def test_undo_since(kind, jail, root):
    jail.write_text("a", "1")
    before = tree(root)
    time.sleep(0.01)
    now = datetime.now(UTC)
    time.sleep(0.01)
    jail.write_text("a", "2")
    jail.mkdir("n")
    jail.move("f", "n/f")
    jail.delete("d")
    since = {"datetime": now, "text": now.isoformat(), "seconds": now.timestamp()}[kind]
    assert len(jail.undo(since=since)) == 4
    assert tree(root) == before
    with pytest.raises(TrashError):
        jail.undo(since=since)


def test_undo_by_actor_since(make, root):
    one, two = make(actor="one"), make(actor="two")
    one.write_text("a", "1")
    time.sleep(0.01)
    now = time.time()
    time.sleep(0.01)
    one.write_text("b", "1")
    two.write_text("c", "1")
    before = tree(root)
    make().undo(actor="one", since=now)
    assert tree(root) == {name: text for name, text in before.items() if name != "b"}


def test_undo_of_parents_that_were_made(jail, root):
    before = tree(root)
    jail.write_text("a/b/c", "x", parents=True)
    jail.undo(since=0)
    assert tree(root) == before


def test_undo_twice_says_so(jail, root):
    change = jail.delete("f")
    jail.undo(change)
    before = tree(root)
    with pytest.raises((TrashError, FileExistsError)):
        jail.undo(change)
    assert tree(root) == before


def test_undoing_a_creation_twice_does_not_take_what_came_later(jail, root):
    change = jail.write_text("n", "mine")
    jail.undo(change)
    (root / "n").write_text("somebody else's")
    with pytest.raises((TrashError, OSError)):
        jail.undo(change)
    assert (root / "n").read_text() == "somebody else's"


def test_undo_of_what_was_purged(jail, root):
    jail.write_text("f", "new")
    jail.trash.purge(older_than_days=0)
    with pytest.raises(TrashError):
        jail.undo()
    assert (root / "f").read_text() == "new"


def test_undo_of_a_delete_never_clobbers(jail, root):
    jail.delete("f")
    (root / "f").write_text("somebody else's")
    with pytest.raises(FileExistsError):
        jail.undo()
    assert (root / "f").read_text() == "somebody else's"
    assert len(jail.trash.items()) == 1


def test_undo_keeps_what_came_after(jail, root):
    """Undoing an overwrite swaps: what is there now goes to the trash, not away."""
    jail.write_text("f", "new")
    (root / "f").write_text("written around the jail")
    jail.undo()
    assert (root / "f").read_text() == "old"
    [item] = jail.trash.items()
    assert (root / ".fsjail/Trash/files" / item.id).read_text() == "written around the jail"


def test_undo_of_a_restore(jail, root):
    before = tree(root)
    item = jail.delete("f").saved
    assert item is not None
    jail.trash.restore(item.id)
    jail.undo()
    assert "f" not in tree(root)
    jail.write_text("f", "two")
    [saved] = [each for each in jail.trash.items() if each.path == "f"]
    jail.trash.restore(saved.id, overwrite=True)
    assert tree(root) == before
    jail.undo()
    assert (root / "f").read_text() == "two"


def test_undo_is_judged(make, root):
    make().write_text("f", "new")
    with pytest.raises(PolicyDenied):
        make(Policy(write=Rules(allow=["*"], deny=["f"]))).undo()
    assert (root / "f").read_text() == "new"


def test_undo_without_a_record(jail, root):
    change = jail.write_text("f", "new")
    bare = Change(change.op, change.path, saved=change.saved)
    jail.undo(bare)
    assert (root / "f").read_text() == "old"
    again = jail.write_text("f", "newer")
    jail.undo(Change(again.op, again.path, saved=again.saved, seq=10**6))
    assert (root / "f").read_text() == "old"


# ── what is gone, and what the disk did not confirm ────────────────────────────────────────────


@pytest.mark.parametrize("dry_run", [True, False])
def test_undo_of_what_was_purged_is_refused_before_the_first_step(jail, root, dry_run):
    jail.write_text("f", "1")
    jail.write_text("g", "2")
    purged = next(item for item in jail.trash.items() if item.path == "f")
    jail.trash._store.purge(purged.id)
    before = tree(root)
    with pytest.raises(TrashError, match=f"no longer holds what the write saved .item {purged.id}"):
        jail.undo(since=0, dry_run=dry_run)
    assert tree(root) == before
    assert [change.path for change in jail.undo(dry_run=dry_run)] == ["g"]


@pytest.mark.parametrize("dry_run", [True, False])
def test_undo_finds_what_a_restore_took_out_of_the_trash_and_its_undo_brings_back(jail, root, dry_run):
    before = tree(root)
    jail.write_text("f", "1")
    jail.trash.restore(jail.trash.items()[0].id, overwrite=True)
    assert len(jail.undo(since=0, dry_run=dry_run)) == 2
    assert dry_run or tree(root) == before


UNCONFIRMED = {
    "delete": (lambda jail: jail.delete("f"), {}),
    "write": (lambda jail: jail.write_text("f", "new"), {"f": "new"}),
    "move onto": (lambda jail: jail.move("g", "f", overwrite=True), {"f": "other"}),
}


@pytest.mark.parametrize("name", UNCONFIRMED)
def test_a_change_whose_last_sync_fails_is_done_told_and_logged(name, jail, root, monkeypatch):
    change, left = UNCONFIRMED[name]
    jail.write_text("first", "so that the folders are there")
    real = _home.sync_folder

    def fails(fd, *, durable):
        real(fd, durable=durable)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(_home, "sync_folder", fails)
    with pytest.raises(TrashError) as caught:
        change(jail)
    monkeypatch.undo()
    [item] = jail.trash.items()
    assert caught.value.errno == errno.EIO
    assert item.id in str(caught.value)
    assert type(pickle.loads(pickle.dumps(caught.value))) is TrashError
    assert tree(root).get("f") == left.get("f")
    event = list(jail.audit.events())[-1]
    assert (event.decision, event.errno, event.trash_id) == ("error", errno.EIO, item.id)
    jail.trash.restore(item.id, overwrite=True)
    assert (root / "f").read_text() == "old"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_change_that_the_disk_refuses_is_logged_as_failed(jail, root, monkeypatch, code):
    jail.mkdir("n")

    def refuses(*_args, **_options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(_home.TrashHome, "claim", refuses)
    with pytest.raises(OSError, match=re.escape(os.strerror(code))):
        jail.delete("f")
    assert (root / "f").read_text() == "old"
    event = list(jail.audit.events())[-1]
    assert (event.op, event.path, event.decision, event.errno) == ("delete", "f", "error", code)
    assert jail.audit.verify()
