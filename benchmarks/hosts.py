"""Where systems run: fsjail and the standard library in this process, each peer in one of its own.

A process of its own keeps a peer's imports, garbage and search path to itself. It takes the time
itself, so that the pipe costs nothing, and it is idle while others are measured.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import warnings
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

from benchmarks.systems import Missing, Setup, System

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection


@dataclass(frozen=True, slots=True)
class Kind:
    """Where a system's class is.

    Attributes:
        place: module and class.
        apart: whether it has a process of its own.
        rg: whether it finds ripgrep on its search path.
    """

    place: str
    apart: bool = True
    rg: bool = False


KINDS = {
    "fsjail": Kind("systems.Fsjail", apart=False),
    "fsjail-none": Kind("systems.FsjailLoose", apart=False),
    "bare": Kind("systems.Bare", apart=False),
    "hand": Kind("systems.Hand", apart=False),
    "hand-none": Kind("systems.HandLoose", apart=False),
    "remove": Kind("systems.Remove", apart=False),
    "plain": Kind("systems.Plain", apart=False),
    "clock": Kind("systems.Clock", apart=False),
    "rg": Kind("searchers.Ripgrep", apart=False),
    "rg-all": Kind("searchers.RipgrepThreads", apart=False),
    "git": Kind("searchers.GitList", apart=False),
    "langchain": Kind("peers.LangChain"),
    "deepagents": Kind("peers.DeepAgents"),
    "deepagents-rg": Kind("peers.DeepAgentsRg", rg=True),
    "deepagents-rules": Kind("peers.DeepAgentsRules"),
    "deepagents-rules-rg": Kind("peers.DeepAgentsRulesRg", rg=True),
    "pydantic-ai": Kind("loops.PydanticAI"),
    "pydantic-ai-rg": Kind("loops.PydanticAIRg", rg=True),
    "mcp": Kind("loops.McpServer"),
    "path-jail": Kind("peers.PathJail"),
    "fsspec": Kind("peers.Fsspec"),
    "send2trash": Kind("peers.Send2Trash"),
    "trash-cli": Kind("peers.TrashCli"),
}


class Seat:
    """A system over one root, wherever it runs."""

    def __init__(self, key: str, ask: Callable[..., Any]) -> None:
        self.key = key
        self._ask = ask
        self.missing = ""
        try:
            self.title, self.group, self.ruled, self.entries, self.ops = ask("open")
        except Missing as error:
            self.missing = str(error)
            self.title, self.group, self.ruled, self.entries = known(key)
            self.ops = frozenset()

    def time(self, op: str, args: tuple[Any, ...], number: int) -> float:
        """Seconds for so many calls."""
        return float(self._ask("time", op, args, number))

    def answer(self, op: str, args: tuple[Any, ...]) -> Any:
        """What a call gives."""
        return self._ask("answer", op, args)


class Hosts:
    """All systems that were asked for; a context manager that closes them."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._seats: dict[tuple[str, str], Seat] = {}
        self._here: dict[tuple[str, str], System] = {}
        self._apart: dict[str, _Process] = {}

    def seat(self, key: str, root: str) -> Seat:
        """A system over a root; made at the first call."""
        found = self._seats.get((key, root))
        if found is None:
            kind = KINDS[key]
            if kind.apart:
                process = self._apart.get(key)
                if process is None:
                    process = self._apart[key] = _Process(key, self.setup)
                found = Seat(key, lambda *what, process=process: process.ask(root, *what))
            else:
                found = Seat(key, lambda *what: serve(self._here, key, self.setup, (root, *what)))
            self._seats[key, root] = found
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for system in self._here.values():
            system.close()
        for process in self._apart.values():
            process.close()


def known(key: str) -> tuple[str, str, bool, bool]:
    """What a class says of itself."""
    module, _, name = KINDS[key].place.partition(".")
    kind = getattr(import_module(f"benchmarks.{module}"), name)
    return kind.title, kind.group, kind.ruled, kind.entries


def serve(here: dict[tuple[str, str], System], key: str, setup: Setup, what: tuple[Any, ...]) -> Any:
    """Carry out one request for a system."""
    root, verb, *rest = what
    if verb == "open":
        module, _, name = KINDS[key].place.partition(".")
        kind = getattr(import_module(f"benchmarks.{module}"), name)
        try:
            system = here[key, root] = kind(root, setup)
        except ImportError as error:
            raise Missing(f"{error.name or 'a module'} is not installed") from None
        gc.collect()
        gc.freeze()  # what was imported is not looked through again by later collections
        operations = frozenset(dir(kind)) - frozenset(dir(System))
        return kind.title, kind.group, kind.ruled, kind.entries, operations
    system = here[key, root]
    return system.time(*rest) if verb == "time" else system.answer(*rest)


class _Process:
    """A process for one system."""

    def __init__(self, key: str, setup: Setup) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_main, args=(theirs, key, setup), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, *what: Any) -> Any:
        try:
            self._pipe.send(what)
            failed, answer = self._pipe.recv()
        except (EOFError, BrokenPipeError):
            raise Missing("its process ended") from None
        if failed == "missing":
            raise Missing(answer)
        if failed:
            raise RuntimeError(answer)
        return answer

    def close(self) -> None:
        self._pipe.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()


def _main(pipe: Connection, key: str, setup: Setup) -> None:
    warnings.simplefilter("ignore")
    _search_path(setup, rg=KINDS[key].rg)
    os.environ["XDG_DATA_HOME"] = f"{setup.base}/data"  # for those that fill a trash
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)  # what servers say of themselves
    here: dict[tuple[str, str], System] = {}
    while True:
        try:
            what = pipe.recv()
        except EOFError:
            break
        try:
            answer: tuple[str, Any] = ("", serve(here, key, setup, what))
        except Missing as error:
            answer = ("missing", str(error))
        except Exception as error:  # noqa: BLE001 - told to the one who asked
            answer = ("failed", f"{type(error).__name__}: {error}"[:500])
        pipe.send(answer)
    for system in here.values():
        system.close()
    sys.stdout.flush()


def _search_path(setup: Setup, *, rg: bool) -> None:
    """Let ripgrep be found or not: peers use it when it is there."""
    folders = [place for place in os.environ.get("PATH", os.defpath).split(":") if place]
    with_rg = os.path.dirname(setup.programs.get("rg", ""))
    kept = [
        place
        for place in folders
        if not os.path.exists(f"{place}/rg") or os.path.exists(f"{place}/sh")  # the system's own stays
    ]
    os.environ["PATH"] = ":".join([with_rg, *kept] if rg and with_rg else kept)
