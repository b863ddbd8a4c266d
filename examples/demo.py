"""An agent session inside a jail, from the first listing to the log of what was refused.

The agent is a script, so no model and no network are needed. Everything else is real: the tools,
the files (a copy of the ``email`` package of Python's standard library), the links, the trash, the
log and the ``fsjail`` command. The demo checks each of its steps and exits with 1 if one did not do
what it says.

Run it: ``make demo``, or ``python examples/demo.py``. ``--keep`` leaves the folder for a look around.
"""

from __future__ import annotations

import argparse
import email
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

from fsjail import Jail
from fsjail.tools import file_tools

CONFIG = """\
[read]
deny = ["private/"]

[write]
allow = ["email/", "notes/"]
"""
SECRET = "TOKEN=never-shown-to-an-agent"
SHOWN_LINES = 6


class StepFailed(Exception):
    """A step of the demo did not do what it says."""


def expect(holds: object, what: str) -> None:
    """Stop the demo if something does not hold."""
    if not holds:
        raise StepFailed(what)


def headline(text: str, number: list[int] = []) -> None:  # noqa: B006  (one running number for the demo)
    """Print the numbered title of a step."""
    number.append(1)
    print(f"\n{len(number)}. {text}")


def fingerprint(folder: Path) -> dict[str, str]:
    """Hash every file below a folder, fsjail's own left out."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".fsjail" not in path.parts
    }


def make_project(base: Path) -> Path:
    """Copy a real source tree, and plant what an agent should not get at."""
    project = base / "project"
    shutil.copytree(
        Path(email.__file__).parent, project / "email", ignore=shutil.ignore_patterns("__pycache__")
    )
    outside = base / "outside"
    outside.mkdir()
    (outside / "customers.csv").write_text(f"{SECRET}\n", encoding="utf-8")
    (project / "notes").mkdir()
    (project / "notes" / "shared").symlink_to(outside)
    (project / "private").mkdir()
    (project / "private" / "key.txt").write_text(f"{SECRET}\n", encoding="utf-8")
    (project / ".env").write_text(f"{SECRET}\n", encoding="utf-8")
    (project / ".git" / "hooks").mkdir(parents=True)
    (project / "fsjail.toml").write_text(CONFIG, encoding="utf-8")
    return project


class Agent:
    """A scripted agent: it has the file tools and nothing else."""

    def __init__(self, jail: Jail) -> None:
        self.tools = {tool.__name__: tool for tool in file_tools(jail)}
        self.heard: list[str] = []

    def call(self, name: str, **arguments: Any) -> str:
        """Call one tool, and show the call and the first lines of its answer."""
        spelled = ", ".join(f"{key}={textwrap.shorten(repr(value), 64)}" for key, value in arguments.items())
        print(f"   > {name}({spelled})")
        answer: str = self.tools[name](**arguments)
        self.heard.append(answer)
        lines = answer.splitlines()
        for line in lines[:SHOWN_LINES]:
            print(f"     {line}")
        if len(lines) > SHOWN_LINES:
            print(f"     ... {len(lines) - SHOWN_LINES} more lines")
        return answer


def look_around(agent: Agent) -> None:
    """Read and search, as any agent begins."""
    headline("The agent looks around. What it may not read is not shown.")
    listing = agent.call("list_directory")
    expect("email/" in listing, "the listing shows the source")
    expect(".env" not in listing and "private" not in listing, "the listing hides what may not be read")
    answer = agent.call("read_file", file_path="email/charset.py", start_line=1, line_count=5)
    expect("Copyright" in answer, "read_file answers with the file's text")
    answer = agent.call("file_search", pattern="*.py", dir_path="email/mime")
    expect("email/mime/text.py" in answer, "file_search finds a file")
    answer = agent.call("grep", pattern=r"^class \w+Parser", file_pattern="*.py")
    expect("email/parser.py:" in answer, "grep finds a class")
    answer = agent.call("write_file", file_path="notes/plan.md", text="# Plan\n\nRead the parser first.\n")
    expect(answer.startswith("Wrote"), "the agent may write its notes")


def try_to_escape(agent: Agent, project: Path, outside: Path) -> int:
    """Try ways out and around; each must be refused with its rule."""
    headline("The agent tries to get out, or at what is not for it. Each call is refused, with the rule.")
    attempts: list[tuple[str, str, dict[str, Any]]] = [
        ("dots that lead out", "read_file", {"file_path": "../outside/customers.csv"}),
        ("an absolute path", "read_file", {"file_path": "/etc/passwd"}),
        ("a link that leads out", "read_file", {"file_path": "notes/shared/customers.csv"}),
        (
            "writing through that link",
            "write_file",
            {"file_path": "notes/shared/customers.csv", "text": "gone"},
        ),
        ("a secret (preset)", "read_file", {"file_path": ".env"}),
        ("the same in capitals", "read_file", {"file_path": ".ENV"}),
        ("a denied directory", "list_directory", {"dir_path": "private"}),
        ("a copy of a secret", "copy_file", {"source_path": ".env", "destination_path": "notes/env.txt"}),
        ("a git hook", "write_file", {"file_path": ".git/hooks/pre-commit", "text": "#!/bin/sh\n"}),
        ("a file not in write.allow", "write_file", {"file_path": "setup.py", "text": "import os\n"}),
        (
            "the rules themselves",
            "write_file",
            {"file_path": "fsjail.toml", "text": "[write]\nallow = ['*']\n"},
        ),
        ("fsjail's own folder", "read_file", {"file_path": ".fsjail/lock"}),
    ]
    before = fingerprint(project), fingerprint(outside)
    for what, name, arguments in attempts:
        print(f"   {what}:")
        answer = agent.call(name, **arguments)
        expect(answer.startswith("Refused:"), f"{what} is refused, not answered with: {answer[:200]}")
    expect((fingerprint(project), fingerprint(outside)) == before, "no attempt changed a file")
    expect(not any(SECRET in answer for answer in agent.heard), "no answer holds a secret")
    expect(not any(str(outside) in answer for answer in agent.heard), "no answer tells where a link leads")
    return len(attempts)


def delete_and_restore(agent: Agent, project: Path) -> None:
    """Delete a whole directory, and bring it back."""
    headline("The agent deletes a directory, and it can be brought back.")
    before = fingerprint(project)
    answer = agent.call("file_delete", file_path="email/mime")
    found = re.search(r'restore_file\("([^"]+)"\)', answer)
    expect(
        found and not (project / "email" / "mime").exists(), "the directory is gone, and its trash id is told"
    )
    agent.call("restore_file", trash_id=found.group(1) if found else "")
    expect(fingerprint(project) == before, "after the restore every file is as it was")
    print("   checked: every file is byte for byte as before")


def edit_and_undo(agent: Agent, jail: Jail, project: Path) -> None:
    """Let the agent break a file, and take the edit back."""
    headline("The agent edits a file, and its user takes the edit back with jail.undo().")
    target = project / "email" / "parser.py"
    before = target.read_bytes()
    line = next(line for line in target.read_text(encoding="utf-8").splitlines() if line.startswith("class "))
    answer = agent.call(
        "edit_file", file_path="email/parser.py", old_text=line, new_text=f"# Broken.\n{line}"
    )
    expect(answer.startswith("Edited") and target.read_bytes() != before, "the edit is in the file")
    undone = jail.undo()
    expect(target.read_bytes() == before, "after the undo the file is byte for byte as before")
    print(
        f"   undone: {', '.join(f'{change.op} {change.path}' for change in undone)}; byte for byte as before"
    )


def look_from_outside(project: Path, refused: int) -> None:
    """Run the command that a person uses."""
    headline("What its user sees: the fsjail command on the same project.")
    script = Path(sys.executable).with_name("fsjail")
    command = [str(script)] if script.exists() else [sys.executable, "-m", "fsjail.cli"]
    for arguments in (["inspect"], ["tree"], ["log", "--denied"]):
        print(f"\n   $ fsjail {' '.join(arguments)}")
        done = subprocess.run(
            [*command, *arguments], cwd=project, capture_output=True, text=True, check=False
        )
        print(textwrap.indent(done.stdout.rstrip(), "   "))
        expect(
            done.returncode == 0, f"fsjail {arguments[0]} exits with 0, not {done.returncode}: {done.stderr}"
        )
        expect(SECRET not in done.stdout, f"fsjail {arguments[0]} shows no secret")
    shown = sum("denied" in line for line in done.stdout.splitlines())
    expect(shown >= refused, f"fsjail log shows all {refused} refusals, and not only {shown}")


def session(base: Path) -> None:
    """Run the whole demo in one folder."""
    project, outside = make_project(base), base / "outside"
    files = len(fingerprint(project / "email"))
    print(f"The project: a copy of Python's email package ({files} files), and fsjail.toml:")
    print(textwrap.indent(CONFIG.rstrip(), "   "))
    start = fingerprint(outside)
    with Jail.load(project, actor="demo-agent") as jail:
        agent = Agent(jail)
        look_around(agent)
        refused = try_to_escape(agent, project, outside)
        delete_and_restore(agent, project)
        edit_and_undo(agent, jail, project)
        denials = list(jail.audit.events(denied=True))
        expect(len(denials) == refused, f"the log holds all {refused} refusals, and not {len(denials)}")
        expect(all(event.why for event in denials), "each refusal in the log says what refused")
        expect(jail.audit.verify(), "the log's chain is whole")
    look_from_outside(project, refused)
    expect(fingerprint(outside) == start, "nothing outside was changed")


def main() -> int:
    """Run the demo.

    Returns:
        0 if every step did what it says, else 1.
    """
    parser = argparse.ArgumentParser(description="An agent session inside a jail, checked step by step.")
    parser.add_argument("--keep", action="store_true", help="leave the folder, and print where it is")
    keep: bool = parser.parse_args().keep
    base = Path(tempfile.mkdtemp(prefix="fsjail-demo-"))
    # The log of this session belongs to this session: not to the user's own state folder.
    os.environ["XDG_STATE_HOME"] = str(base / "state")
    os.environ["XDG_CONFIG_HOME"] = os.environ["XDG_CONFIG_DIRS"] = str(base / "config")
    began = time.monotonic()
    try:
        session(base)
    except StepFailed as failure:
        print(f"\nThe demo failed. This did not hold: {failure}.", file=sys.stderr)
        return 1
    finally:
        if keep:
            print(f"\nKept: {base} (the log is below {base / 'state'})")
        else:
            shutil.rmtree(base)
    print(f"\nAll steps did what they say ({time.monotonic() - began:.1f} s).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
