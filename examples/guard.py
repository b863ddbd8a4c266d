"""Code that goes around the jail, in the same process: seen by a guard, and refused.

Run it: ``python examples/guard.py``. It works in a temporary folder, and checks what it shows.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fsjail import AccessDenied, Jail, Policy, Rules

if TYPE_CHECKING:
    from collections.abc import Callable


def attempts(project: Path) -> dict[str, Callable[[], object]]:
    """What an agent's own Python code might do instead of calling its tools."""
    return {
        "read a secret": lambda: (project / ".env").read_text(encoding="utf-8"),
        "read through a link": lambda: (project / "notes" / "link").read_text(encoding="utf-8"),
        "read a file outside": lambda: Path("/etc/passwd").read_text(encoding="utf-8"),
        "write where it may not": lambda: (project / "setup.py").write_text("import os\n", encoding="utf-8"),
        "remove a file outside": lambda: os.remove(project.parent / "outside.txt"),
        "start a process": lambda: subprocess.run(["cat", ".env"], check=False, capture_output=True),
        "open a jail of its own": lambda: Jail(project, Policy.workspace()),
    }


def try_all(project: Path) -> int:
    """Try everything; say what became of it.

    Returns:
        how many attempts were refused.
    """
    refused = 0
    for what, attempt in attempts(project).items():
        try:
            result = attempt()
        except AccessDenied as error:
            refused += 1
            print(f"  {what}: {error}")
        else:
            print(f"  {what}: it went through ({str(result)[:24]!r})")
            if isinstance(result, Jail):
                result.close()
    return refused


def main() -> int:
    """Let the attempts run unguarded, watched, and guarded.

    Returns:
        0 if the guard did what it says, else 1.
    """
    with tempfile.TemporaryDirectory(prefix="fsjail-guard-") as folder:
        os.environ["XDG_STATE_HOME"] = folder  # for the jail that the agent opens
        project, outside = Path(folder, "project"), Path(folder, "outside.txt")
        (project / "notes").mkdir(parents=True)
        (project / ".env").write_text("TOKEN=not-for-agents\n", encoding="utf-8")
        (project / "notes" / "link").symlink_to(outside)

        policy = Policy(write=Rules(allow=["notes/"]))
        with Jail(project, policy, actor="example", state=Path(folder, "state")) as jail:
            refused = {}
            for mode in ("log", "block"):
                outside.write_text("somebody else's\n", encoding="utf-8")
                print(f"guard({mode!r}):")
                with jail.guard("block" if mode == "block" else "log"):
                    refused[mode] = try_all(project)
                    jail.write_text("notes/done.md", "the jail's own work is left alone\n")
                    (project / "notes" / "raw.md").write_text("allowed, and told\n", encoding="utf-8")
            kept = outside.read_text(encoding="utf-8") == "somebody else's\n"
            seen = [event for event in jail.audit.events() if event.layer == "guard"]
    print("the log:")
    for event in seen:
        print(f"  {event.decision:5} {event.op:6} {Path(event.path).name:12} {event.why}")
    denied = sum(event.decision == "deny" for event in seen)
    return 0 if (refused, denied, kept) == ({"log": 0, "block": 7}, 14, True) else 1


if __name__ == "__main__":
    sys.exit(main())
