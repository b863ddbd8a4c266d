"""Whatever was done can be undone: random operations, then undo gives back every byte, name and mode."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fsjail import Jail, Policy, Rules, TrashError

OPEN = Policy(write=Rules(allow=["*"]))
PATHS = st.sampled_from(["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "l", "new", "new/a", "d/new"])
TEXTS = st.text("xy\n é", max_size=12)


def look(root: Path) -> dict[str, tuple[str, int, bytes]]:
    found = {}
    for folder, folders, names in os.walk(root):
        if Path(folder) == root and ".fsjail" in folders:
            folders.remove(".fsjail")
        for name in (*folders, *names):
            path = Path(folder, name)
            mode = path.lstat().st_mode
            content = b""
            if stat.S_ISLNK(mode):
                content = os.fsencode(os.readlink(path))
            elif stat.S_ISREG(mode):
                content = path.read_bytes()
            found[str(path.relative_to(root))] = (stat.filemode(mode), stat.S_IMODE(mode), content)
    return found


class UndoMachine(RuleBasedStateMachine):
    """Each operation may be refused by the system (a name taken, a directory in the way): no change then."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="fsjail-undo-"))
        self.root = self.folder / "root"
        (self.root / "d" / "e").mkdir(parents=True)
        for path, mode in (("a", 0o640), ("b", 0o755), ("d/a", 0o600), ("d/e/a", 0o444)):
            (self.root / path).write_text(f"content of {path}\n")
            (self.root / path).chmod(mode)
        (self.root / "d").chmod(0o750)
        (self.root / "l").symlink_to("a")
        self.start = look(self.root)
        self.jail = Jail(self.root, OPEN, state=self.folder / "state", durability="none")

    @initialize()
    def nothing_yet(self):
        assert look(self.root) == self.start

    def attempt(self, act) -> None:
        before = look(self.root)
        seen = {event.seq for event in self.jail.audit.events()}
        with suppress(OSError, ValueError):
            act()
        changes = [event for event in self.jail.audit.events() if event.seq not in seen]
        made = [event for event in changes if event.decision == "allow"]
        if not made:
            assert look(self.root) == before, "changed, and nothing in the log"

    @rule(path=PATHS, text=TEXTS, parents=st.booleans())
    def write(self, path, text, parents):
        self.attempt(lambda: self.jail.write_text(path, text, parents=parents))

    @rule(path=PATHS, text=TEXTS)
    def append(self, path, text):
        self.attempt(lambda: self.jail.append_text(path, text))

    @rule(path=PATHS, text=TEXTS)
    def edit(self, path, text):
        self.attempt(lambda: self.jail.edit(path, "content", text))

    @rule(path=PATHS, parents=st.booleans())
    def mkdir(self, path, parents):
        self.attempt(lambda: self.jail.mkdir(path, parents=parents))

    @rule(source=PATHS, dest=PATHS, overwrite=st.booleans())
    def copy(self, source, dest, overwrite):
        self.attempt(lambda: self.jail.copy(source, dest, overwrite=overwrite))

    @rule(source=PATHS, dest=PATHS, overwrite=st.booleans())
    def move(self, source, dest, overwrite):
        self.attempt(lambda: self.jail.move(source, dest, overwrite=overwrite))

    @rule(path=PATHS)
    def delete(self, path):
        self.attempt(lambda: self.jail.delete(path))

    @rule(number=st.integers(0, 5), to=st.none() | PATHS, overwrite=st.booleans())
    def restore(self, number, to, overwrite):
        items = self.jail.trash.items()
        if items:
            item = items[number % len(items)]
            self.attempt(lambda: self.jail.trash.restore(item.id, to=to, overwrite=overwrite))

    @rule()
    def undo_and_undo_that(self):
        before = look(self.root)
        with suppress(TrashError):
            for change in reversed(self.jail.undo()):
                self.jail.undo(change)
        assert look(self.root) == before

    @rule()
    def undo_one(self):
        with suppress(TrashError):
            self.jail.undo()

    @invariant()
    def the_log_is_sound(self):
        assert self.jail.audit.verify()

    def teardown(self):
        try:
            with suppress(TrashError):
                self.take_all_back()
            assert look(self.root) == self.start
        finally:
            self.jail.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def take_all_back(self) -> None:
        """In one call, since the start."""
        self.jail.undo(since=0.0)


class StepMachine(UndoMachine):
    """The same, one change after the other."""

    def take_all_back(self) -> None:
        for _ in range(1000):
            try:
                self.jail.undo()
            except TrashError as error:
                assert "nothing to undo" in str(error)  # noqa: PT017 - the end that is expected
                return
        raise AssertionError("undo came to no end")


QUICK = settings(max_examples=120, stateful_step_count=12, derandomize=True, database=None, deadline=None)
UndoMachine.TestCase.settings = QUICK
StepMachine.TestCase.settings = QUICK
TestUndoSince = UndoMachine.TestCase
TestUndoStepByStep = StepMachine.TestCase
