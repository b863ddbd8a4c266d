"""What goes around the jail, seen: ``python examples/watch.py``.

An agent works through its jail, and nothing of that is told. Then another program plants a link, writes a
secret, changes a file behind the jail's back, and touches what lies outside as a tripwire: each is told once.
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

ATTACK = """
import os
open("notes/todo.md", "a").write("- trust nobody\\n")
open(".env", "w").write("TOKEN=stolen\\n")
os.symlink("/etc/passwd", "notes/harmless.md")
open("../keys/id_ed25519", "a").write("x")
"""
EXPECTED = {
    ("unexplained", "write", "notes/todo.md"),
    ("denied change", "create", ".env"),
    ("link", "create", "notes/harmless.md"),
    ("tripwire", "write", "id_ed25519"),
}


def main() -> int:
    """Watch a small project while an agent and an attacker work in it."""
    told: set[tuple[str, str, str]] = set()
    all_told = threading.Event()

    def tell(event: Event) -> None:  # called in a thread of the watch
        kind = (event.extra or {})["kind"]
        print(f"  {kind}: {event.op} {event.path}" + (f" -> {event.to}" if event.to else ""))
        told.add((kind, event.op, event.path if kind != "tripwire" else Path(event.path).name))
        if told >= EXPECTED:
            all_told.set()

    with tempfile.TemporaryDirectory(prefix="fsjail-watch-") as folder:
        project, keys = Path(folder, "project"), Path(folder, "keys")
        (project / "notes").mkdir(parents=True)
        keys.mkdir()
        (keys / "id_ed25519").write_text("private\n", encoding="utf-8")

        policy = Policy(write=Rules(allow=["notes/"]))
        with (
            Jail(project, policy, actor="watched", state=Path(folder, "state")) as jail,
            jail.watch(tell, tripwires=[keys]),
        ):
            print("The agent writes, edits and deletes through its jail:")
            jail.write_text("notes/todo.md", "- try fsjail\n")
            jail.edit("notes/todo.md", "try", "watch")
            jail.write_text("notes/old.md", "gone soon\n")
            jail.delete("notes/old.md")
            print("Another program goes around it:")
            subprocess.run([sys.executable, "-c", ATTACK], cwd=project, check=True)
            all_told.wait(20)
        if told != EXPECTED:
            print(f"This was not told as it should be: {sorted(told ^ EXPECTED)}", file=sys.stderr)
            return 1
        print("That is all: nothing was missed, and nothing that the jail did was told.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
