"""Peers whose functions are coroutines."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from benchmarks.peers import MANY, globs
from benchmarks.systems import Missing, System

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Loop(System):
    """A system of coroutines: a batch of calls runs in one coroutine, in a loop that stays."""

    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    def wait(self, awaitable: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(awaitable, self.loop).result()

    def time(self, op: str, args: tuple[Any, ...], number: int) -> float:
        call: Callable[..., Awaitable[object]] = getattr(self, op)

        async def batch() -> float:
            begin = time.perf_counter()
            for _ in range(number):
                await call(*args)
            return time.perf_counter() - begin

        return float(self.wait(batch()))

    def answer(self, op: str, args: tuple[Any, ...]) -> Any:
        return self.wait(getattr(self, op)(*args))


class PydanticAI(Loop):
    """pydantic-ai-harness' FileSystem tools, with denied patterns, over a local workspace."""

    title = "pydantic-ai-harness FileSystem"
    ruled = True
    entries = True

    def open(self) -> None:
        from pydantic_ai.workspaces import LocalWorkspaceBackend  # noqa: PLC0415 - optional
        from pydantic_ai_harness.filesystem import FileSystemToolset  # noqa: PLC0415

        super().open()
        rules = globs((*self.setup.rules, ".env"), "")
        self.files = FileSystemToolset(
            allowed_patterns=[],
            denied_patterns=rules,
            max_read_lines=MANY,
            max_list_results=MANY,
            max_search_results=MANY,
            max_find_results=MANY,
        )
        self.space = LocalWorkspaceBackend(self.root)

    async def read(self, name: str) -> Any:
        return await self.files.read_file(name, workspace=self.space)

    async def create(self, folder: str, size: int) -> None:
        await self.overwrite(self.fresh(folder), size)

    async def overwrite(self, name: str, size: int) -> None:
        await self.files.write_file(name, self.content(size).decode(), workspace=self.space)

    async def listing(self, name: str) -> Any:
        return await self.files.list_directory(name, workspace=self.space)

    async def glob(self, pattern: str) -> Any:
        return await self.files.find_files(pattern, workspace=self.space)

    async def grep(self, needle: str, literal: bool) -> Any:
        del literal  # the literals that are measured are the same as expressions
        return await self.files.search_files(needle, workspace=self.space)

    async def refused(self, *names: str) -> int:
        from pydantic_ai import ModelRetry  # noqa: PLC0415 - optional

        stopped = 0
        for name in names:
            try:
                await self.files.read_file(name, workspace=self.space)
            except ModelRetry:
                stopped += 1
        return stopped


class PydanticAIRg(PydanticAI):
    """The same where it finds ripgrep."""

    title = "pydantic-ai-harness FileSystem, rg"


class McpServer(Loop):
    """The MCP reference server for files, over stdio; it has no rules."""

    title = "MCP reference server (stdio)"

    def open(self) -> None:
        from mcp import Client, StdioServerParameters  # noqa: PLC0415 - optional

        programs = self.setup.programs
        for program, what in (("node", "node"), ("server", "@modelcontextprotocol/server-filesystem")):
            if program not in programs:
                raise Missing(f"{what} is not installed")
        super().open()
        self.root = os.path.realpath(self.root)
        parameters = StdioServerParameters(command=programs["node"], args=[programs["server"], self.root])
        ready, self.leave = threading.Event(), asyncio.Event()
        failed: list[BaseException] = []

        async def stay() -> None:
            # One task opens and leaves the connection, as its library demands.
            try:
                async with Client(parameters) as self.client:
                    ready.set()
                    await self.leave.wait()
            except Exception as error:  # noqa: BLE001 - told to the opener
                failed.append(error)
            ready.set()

        self.stay = asyncio.run_coroutine_threadsafe(stay(), self.loop)
        ready.wait(60)
        if failed or not ready.is_set():
            raise Missing(f"it did not start: {failed[0] if failed else 'no answer'}")

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.leave.set)
        self.stay.result(10)
        super().close()

    async def _call(self, tool: str, **values: Any) -> Any:
        return await self.client.call_tool(tool, values)

    async def _text(self, tool: str, **values: Any) -> str:
        return str((await self._call(tool, **values)).content[0].text)

    async def read(self, name: str) -> str:
        return await self._text("read_text_file", path=f"{self.root}/{name}")

    async def create(self, folder: str, size: int) -> None:
        await self.overwrite(self.fresh(folder), size)

    async def overwrite(self, name: str, size: int) -> None:
        await self._call("write_file", path=f"{self.root}/{name}", content=self.content(size).decode())

    async def listing(self, name: str) -> Any:
        text = await self._text("list_directory", path=f"{self.root}/{name}")
        return text.splitlines()

    async def glob(self, pattern: str) -> Any:
        return await self._text("search_files", path=self.root, pattern=pattern)

    async def refused(self, *names: str) -> int:
        stopped = 0
        for name in names:
            stopped += (await self._call("read_text_file", path=f"{self.root}/{name}")).is_error
        return stopped
