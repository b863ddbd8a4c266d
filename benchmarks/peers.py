"""What people use instead: one small class for each peer, with the operations that it has.

Each is called at its own functions, without the agent framework around them: what a framework adds
to every call is not counted. Where a peer has deny rules, it gets the same number of them, in its
own syntax.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from benchmarks.systems import Missing, Plain, System

MANY = 10**7


def globs(rules: tuple[str, ...], top: str) -> list[str]:
    """Deny rules in gitignore syntax as plain globs; a peer has no exceptions, which become rules too.

    Args:
        rules: of the kinds that `trees.patterns` makes.
        top: what stands before a pattern from the root, "/" or nothing.
    """
    found = []
    for rule in rules:
        text = rule.removeprefix("!")
        bare = text.strip("/")
        anchored = "/" in text.rstrip("/")
        head = top + ("" if anchored else "**/") + bare
        found.append(f"{head}/**" if text.endswith("/") else head)
    return found


class LangChain(System):
    """langchain-community's FileManagementToolkit; it has no rules."""

    title = "langchain FileManagementToolkit"

    def open(self) -> None:
        from langchain_community.agent_toolkits import FileManagementToolkit  # noqa: PLC0415 - optional

        tools = FileManagementToolkit(root_dir=self.root).get_tools()
        self.tools: dict[str, Any] = {tool.name: tool._run for tool in tools}  # noqa: SLF001 - without the framework

    def read(self, name: str) -> str:
        return self.tools["read_file"](name)

    def create(self, folder: str, size: int) -> None:
        self.overwrite(self.fresh(folder), size)

    def overwrite(self, name: str, size: int) -> None:
        self.tools["write_file"](name, self.content(size).decode())

    def listing(self, name: str) -> Any:
        return self.tools["list_directory"](name)

    def glob(self, pattern: str) -> Any:
        return self.tools["file_search"](pattern.removeprefix("**/"))

    def refused(self, *names: str) -> int:
        return sum("Access denied" in self.tools["read_file"](name) for name in names)


class DeepAgents(System):
    """deepagents' FilesystemBackend, with its own search in Python."""

    title = "deepagents FilesystemBackend"
    entries = True

    def open(self) -> None:
        from deepagents.backends.filesystem import FilesystemBackend  # noqa: PLC0415 - optional

        self.backend = FilesystemBackend(self.root, virtual_mode=True)

    def read(self, name: str) -> str:
        return self.backend.read(f"/{name}", limit=MANY).file_data["content"]

    def create(self, folder: str, size: int) -> None:
        self.overwrite(self.fresh(folder), size)

    def overwrite(self, name: str, size: int) -> None:
        self.backend.write(f"/{name}", self.content(size).decode())

    def listing(self, name: str) -> Any:
        return self.backend.ls(f"/{name}").entries

    def glob(self, pattern: str) -> Any:
        return self.backend.glob(pattern, "/").matches

    def grep(self, needle: str, literal: bool) -> Any:
        _only_literal(literal)
        return self.backend.grep(needle, "/").matches

    def delete(self, name: str) -> None:
        self.backend.delete(f"/{name}")

    def refused(self, *names: str) -> int:
        stopped = 0
        for name in names:
            try:
                self.backend.read(f"/{name}")
            except ValueError:
                stopped += 1
        return stopped


class DeepAgentsRg(DeepAgents):
    """The same where it finds ripgrep."""

    title = "deepagents FilesystemBackend, rg"


class DeepAgentsRules(System):
    """deepagents' file tools with deny rules over the same backend."""

    title = "deepagents tools, deny rules"
    ruled = True
    entries = False

    def open(self) -> None:
        from deepagents.backends.filesystem import FilesystemBackend  # noqa: PLC0415 - optional
        from deepagents.middleware.filesystem import FilesystemMiddleware, FilesystemPermission  # noqa: PLC0415
        from langchain.tools import ToolRuntime  # noqa: PLC0415

        rules = [
            FilesystemPermission(operations=["read", "write"], paths=[glob], mode="deny")
            for glob in globs((*self.setup.rules, ".env"), "/")
        ]
        middleware: Any = FilesystemMiddleware(
            backend=FilesystemBackend(self.root, virtual_mode=True), permissions=rules
        )
        self.tools: dict[str, Any] = {tool.name: tool.func for tool in middleware.tools}
        self.runtime = ToolRuntime(
            state={}, context=None, config={}, stream_writer=print, tool_call_id="1", store=None
        )

    def _call(self, tool: str, **values: Any) -> str:
        return self.tools[tool](runtime=self.runtime, **values).content

    def read(self, name: str) -> str:
        return self._call("read_file", file_path=f"/{name}", limit=MANY)

    def create(self, folder: str, size: int) -> None:
        self.overwrite(self.fresh(folder), size)

    def overwrite(self, name: str, size: int) -> None:
        self._call("write_file", file_path=f"/{name}", content=self.content(size).decode())

    def listing(self, name: str) -> Any:
        return self._call("ls", path=f"/{name}")

    def glob(self, pattern: str) -> Any:
        return self._call("glob", pattern=pattern)

    def grep(self, needle: str, literal: bool) -> Any:
        _only_literal(literal)
        return self._call("grep", pattern=needle, output_mode="content")

    def delete(self, name: str) -> None:
        self._call("delete", file_path=f"/{name}")

    def refused(self, *names: str) -> int:
        return sum(self._refuses(name) for name in names)

    def _refuses(self, name: str) -> bool:
        said = self._call("read_file", file_path=f"/{name}")
        return said.startswith("Error") and "not found" not in said


class DeepAgentsRulesRg(DeepAgentsRules):
    """The same where it finds ripgrep."""

    title = "deepagents tools, deny rules, rg"


def _only_literal(literal: bool) -> None:
    if not literal:
        raise Missing("searches literal text only")


class PathJail(Plain):
    """path-jail: it joins a name to the root and checks it; using the path is left to the caller."""

    title = "path-jail, then open"

    def open(self) -> None:
        from path_jail import Jail  # noqa: PLC0415 - optional

        self.jail = Jail(self.root)

    def inside(self, name: str) -> Path:
        return Path(self.jail.join(name))

    def refused(self, *names: str) -> int:
        stopped = 0
        for name in names:
            try:
                self.read(name)
            except ValueError:
                stopped += 1
        return stopped


class Fsspec(System):
    """fsspec's DirFileSystem: a prefix, no protection."""

    title = "fsspec DirFileSystem"
    entries = True

    def open(self) -> None:
        from fsspec.implementations.dirfs import DirFileSystem  # noqa: PLC0415 - optional
        from fsspec.implementations.local import LocalFileSystem  # noqa: PLC0415

        self.files = DirFileSystem(self.root, LocalFileSystem())

    def read(self, name: str) -> str:
        return str(self.files.read_text(name))

    def create(self, folder: str, size: int) -> None:
        self.overwrite(self.fresh(folder), size)

    def overwrite(self, name: str, size: int) -> None:
        self.files.pipe_file(name, self.content(size))

    def listing(self, name: str) -> Any:
        return self.files.ls(name, detail=True)

    def glob(self, pattern: str) -> Any:
        return self.files.glob(pattern)

    def walk(self) -> int:
        return sum(len(folders) + len(names) for _, folders, names in self.files.walk(""))

    def delete(self, name: str) -> None:
        self.files.rm(name, recursive=True)

    def refused(self, *names: str) -> int:
        stopped = 0
        for name in names:
            try:
                self.files.read_text(name)
            except (PermissionError, ValueError):
                stopped += 1
            except FileNotFoundError:
                continue
        return stopped


class Send2Trash(System):
    """send2trash: into the user's trash."""

    title = "send2trash"

    def open(self) -> None:
        from send2trash import send2trash  # noqa: PLC0415 - optional

        self.send = send2trash

    def delete(self, name: str) -> None:
        self.send(f"{self.root}/{name}")


class TrashCli(System):
    """trash-cli's trash-put, a process."""

    title = "trash-cli: trash-put (a process)"

    def open(self) -> None:
        if "trash-put" not in self.setup.programs:
            raise Missing("trash-cli is not installed")

    def delete(self, name: str) -> None:
        command = [self.setup.programs["trash-put"], f"{self.root}/{name}"]
        subprocess.run(command, check=True, capture_output=True)
