"""fsjail's file tools as LangChain tools.

Run it: ``python examples/langchain_tools.py`` (needs ``langchain-core``). The model's messages are a
script here; with a real model they come from ``model.bind_tools(tools).invoke(messages)``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.tools import BaseTool, StructuredTool

from fsjail import Jail, Policy
from fsjail.tools import file_tools

if TYPE_CHECKING:
    from collections.abc import Iterator


def langchain_tools(jail: Jail) -> list[BaseTool]:
    """Wrap every file tool; the argument descriptions come from the docstrings."""
    return [StructuredTool.from_function(tool, parse_docstring=True) for tool in file_tools(jail)]


def scripted_messages() -> Iterator[AIMessage]:
    """Stand in for a chat model: messages with tool calls, then a last one without."""
    calls: list[tuple[str, dict[str, Any]]] = [
        ("grep", {"pattern": "def ", "file_pattern": "*.py"}),
        ("edit_file", {"file_path": "app.py", "old_text": "return 1", "new_text": "return 2"}),
        ("read_file", {"file_path": "id_rsa"}),
        ("write_file", {"file_path": ".git/hooks/post-commit", "text": "#!/bin/sh\n"}),
    ]
    for number, (name, arguments) in enumerate(calls):
        call = {"type": "tool_call", "id": f"call-{number}", "name": name, "args": arguments}
        yield AIMessage(content="", tool_calls=[call])
    yield AIMessage(content="Changed app.py. The key and the git hook were refused.")


def main() -> None:
    """Run the usual loop: model, tool calls, tool messages, until a message has no calls."""
    with tempfile.TemporaryDirectory(prefix="fsjail-langchain-") as folder:
        project = Path(folder, "project")
        project.mkdir()
        (project / "app.py").write_text("def answer():\n    return 1\n", encoding="utf-8")
        (project / "id_rsa").write_text("not a real key\n", encoding="utf-8")

        with Jail(project, Policy.workspace(), actor="langchain", state=Path(folder, "state")) as jail:
            tools = {tool.name: tool for tool in langchain_tools(jail)}
            messages: list[BaseMessage] = [HumanMessage("Let answer() return 2.")]
            for message in scripted_messages():
                messages.append(message)
                messages.extend(tools[call["name"]].invoke(call) for call in message.tool_calls)
        for said in messages:
            said.pretty_print()


if __name__ == "__main__":
    main()
