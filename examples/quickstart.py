"""The smallest agent loop with fsjail: a model asks for tools by name, the loop calls them.

Run it: ``python examples/quickstart.py``. The model is a script here, so that no key and no network
are needed; put your own client in its place.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from fsjail import Jail, Policy, Rules
from fsjail.tools import file_tools


def scripted_model(turn: int) -> tuple[str, dict[str, Any]] | None:
    """Stand in for a model: the next tool call, or None when it is done."""
    calls: list[tuple[str, dict[str, Any]]] = [
        ("list_directory", {}),
        ("read_file", {"file_path": "notes/todo.md"}),
        ("write_file", {"file_path": "notes/done.md", "text": "- read the list\n"}),
        ("read_file", {"file_path": ".env"}),
        ("read_file", {"file_path": "../../etc/passwd"}),
        ("file_delete", {"file_path": "notes/todo.md"}),
    ]
    return calls[turn] if turn < len(calls) else None


def main() -> None:
    """Make a small project, open a jail on it, and let the model work."""
    with tempfile.TemporaryDirectory(prefix="fsjail-quickstart-") as folder:
        project = Path(folder, "project")
        (project / "notes").mkdir(parents=True)
        (project / "notes" / "todo.md").write_text("- try fsjail\n", encoding="utf-8")
        (project / ".env").write_text("TOKEN=not-for-agents\n", encoding="utf-8")

        policy = Policy(write=Rules(allow=["notes/"]))
        with Jail(project, policy, actor="quickstart", state=Path(folder, "state")) as jail:
            tools = {tool.__name__: tool for tool in file_tools(jail)}
            turn = 0
            while call := scripted_model(turn):
                name, arguments = call
                print(f"> {name} {arguments}")
                print(tools[name](**arguments))
                turn += 1
            print(f"denied: {sum(1 for _ in jail.audit.events(denied=True))}")


if __name__ == "__main__":
    main()
