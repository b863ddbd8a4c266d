"""Changes that do not come through the jail: told by a watch, while the jail's own work is not.

Run it: ``python examples/watch.py``. It works in a temporary folder, and checks what it shows.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from fsjail import Jail, Policy, Rules

if TYPE_CHECKING:
    from fsjail import Event

# Another program of the same user, for instance a command that the agent has started.
STRANGER = """
import os, sys
root, outside = sys.argv[1:]
open(f"{root}/.env", "w").write("TOKEN=planted")       # a name that may not be written
open(f"{root}/src/app.py", "a").write("import os")      # allowed, but not by the jail
os.symlink(outside, f"{root}/src/way-out")              # a link that leads out
open(f"{outside}/key", "w").write("changed")            # a tripwire outside
"""
EXPECTED = {
    ("denied change", ".env"),
    ("unexplained", "src/app.py"),
    ("link", "src/way-out"),
    ("tripwire", "key"),
}
PATIENCE_SECONDS = 20


class Eyes:
    """Prints what a watch tells, and knows when all of it has been seen."""

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self.seen: set[tuple[str, str]] = set()
        self.all = threading.Event()

    def __call__(self, event: Event) -> None:
        """Be told; in the watch's own thread."""
        kind = str((event.extra or {}).get("kind"))
        name = Path(event.path).name if kind == "tripwire" else event.path
        print(f"  {kind}: {event.op} {name} ({event.why})")
        self.seen.add((kind, name))
        if self.seen >= EXPECTED:
            self.all.set()


def main() -> int:
    """Let the jail and a stranger work beside each other.

    Returns:
        0 if the watch told of the stranger's changes, and of no other, else 1.
    """
    with tempfile.TemporaryDirectory(prefix="fsjail-watch-") as folder:
        project, outside = Path(folder, "project"), Path(folder, "outside")
        (project / "src").mkdir(parents=True)
        outside.mkdir()
        (project / "src" / "app.py").write_text("print('hello')\n", encoding="utf-8")
        (outside / "key").write_text("somebody else's\n", encoding="utf-8")

        eyes = Eyes()
        policy = Policy(write=Rules(allow=["src/", "notes/"]))
        with (
            Jail(project, policy, actor="example", state=Path(folder, "state")) as jail,
            jail.watch(eyes, tripwires=[outside]),
        ):
            print("the jail writes, edits, moves and deletes:")
            jail.write_text("notes/todo.md", "one\n", parents=True)
            jail.edit("notes/todo.md", "one", "two")
            jail.move("notes", "src/notes")
            jail.delete("src/notes")
            print("a stranger does, too:")
            subprocess.run([sys.executable, "-c", STRANGER, str(project), str(outside)], check=True)
            eyes.all.wait(PATIENCE_SECONDS)
    return 0 if eyes.seen == EXPECTED else 1


if __name__ == "__main__":
    sys.exit(main())
