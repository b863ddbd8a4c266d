"""What shows in whole processes: how long they take to start, and how much memory they need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from benchmarks.hosts import KINDS, known
from benchmarks.measure import Case, Way
from benchmarks.systems import Missing, Setup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.place import Place

CHECK = "from fsjail.cli import main; main()"  # what the console script does
TYPER = """
import typer
app = typer.Typer()
@app.command()
def hello(): ...
app()
"""
# Modules that a program imports to get a peer's file tools.
IMPORTS = {
    "path-jail": "path_jail",
    "fsspec": "fsspec.implementations.dirfs",
    "langchain": "langchain_community.agent_toolkits",
    "deepagents": "deepagents.backends.filesystem",
    "pydantic-ai": "pydantic_ai_harness.filesystem",
    "mcp": "mcp",
}
READERS = ("fsjail", "plain", "langchain", "deepagents", "pydantic-ai")


def _environment(base: str) -> dict[str, str]:
    """The process's own, with the configuration of nobody, and compiled modules kept as they usually are."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    path = [here, *filter(None, os.environ.get("PYTHONPATH", "").split(":"))]
    own = dict.fromkeys(("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"), f"{base}/xdg")
    environ = {**os.environ, **own, "PYTHONPATH": ":".join(path)}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    return environ


def _process(command: list[str], folder: str, environ: dict[str, str]) -> Callable[[int], float]:
    def run(number: int) -> float:
        begin = time.perf_counter()
        for _ in range(number):
            subprocess.run(command, check=True, cwd=folder, env=environ, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begin

    return run


def starts(place: Place, systems: frozenset[str] | None) -> Iterator[Case]:
    """Importing, and the command line, beside an empty process."""
    folder = f"{place.base}/start"
    os.makedirs(folder, exist_ok=True)
    rules = ", ".join(json.dumps(rule) for rule in ("private_*/", "*.secret"))
    with open(f"{folder}/fsjail.toml", "w", encoding="utf-8") as file:
        file.write(f'[read]\ndeny = [{rules}]\n\n[write]\nallow = ["src/"]\n')
    environ = _environment(place.base)

    def way(key: str, title: str, code: str, *more: str, group: str = "plain") -> Way:
        run = _process([sys.executable, "-c", code, *more], folder, environ)
        run(1)  # compiles
        return Way(key, title, run, group=group)

    empty = way("python", "python -c pass", "pass")
    imports = [way("fsjail", "import fsjail", "import fsjail", group="ours"), empty]
    for key, module in IMPORTS.items():
        if systems is not None and key not in systems:
            continue
        title = f"import {module}"
        if find_spec(module.partition(".")[0]) is None:
            imports.append(Way(key, title, None, "not installed"))
        else:
            imports.append(
                way(
                    key,
                    title,
                    f"import warnings; warnings.simplefilter('ignore'); import {module}",
                    group="peer",
                )
            )
    yield Case("start.import", "import, as a process", imports)
    # Names are loaded when they are used: this is what a program pays that makes a jail.
    first = "from fsjail import Jail; Jail('.')"
    yield Case("start.jail", "a first jail, as a process", [way("fsjail", first, first, group="ours"), empty])
    yield Case(
        "start.check",
        "fsjail check read NAME, as a process",
        [
            way("fsjail", "fsjail check read src/app.py", CHECK, "check", "read", "src/app.py", group="ours"),
            empty,
            way("typer", "a typer command that does nothing", TYPER),
        ],
    )


def memory(
    place: Place, rules: list[str], readers: tuple[str, ...] = READERS, *, walks: bool = True
) -> dict[str, dict[str, Any]]:
    """Growth of the memory's peak, in bytes, each measured in a process of its own.

    Args:
        place: the trees.
        rules: deny rules.
        readers: the systems that read a large file.
        walks: whether walks are measured too.
    """
    figures: dict[str, dict[str, Any]] = {}
    environ = _environment(place.base)

    def child(*what: object) -> dict[str, Any]:
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.processes", *map(str, what)]
        done = subprocess.run(command, check=False, env=environ, capture_output=True, text=True)
        if done.returncode:
            return {"note": done.stderr.strip().splitlines()[-1][:200]}
        return dict(json.loads(done.stdout))

    shared = json.dumps(rules)
    for number in place.scale.walked if walks else ():
        for key in ("fsjail", "bare"):
            root = place.tree(number, empty=True).root
            figures[f"memory.walk.{number}.{key}"] = {
                "title": f"walk of {number:,} files: {'fsjail' if key == 'fsjail' else 'os.walk'}",
                **child("walk", key, root, place.base, shared),
            }
    large = f"{place.small()}/large.txt"
    with open(large, "wb") as file:
        file.truncate(place.scale.large_read)
    for key in readers:
        figures[f"memory.read.{key}"] = {
            "title": f"read of {place.scale.large_read >> 20} MiB: {known(key)[0]}",
            **child("read", key, place.small(), place.base, shared),
        }
    os.remove(large)
    return figures


def _peak() -> int:
    """The highest resident size so far, in bytes."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource  # noqa: PLC0415 - where there is no /proc

        size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return size if sys.platform == "darwin" else size << 10


def _forget_peak() -> None:
    """Let the peak begin at the present size, where the system can."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        return


def _main(what: str, key: str, root: str, base: str, rules: str) -> None:
    from importlib import import_module  # noqa: PLC0415 - in the measured process only

    module, _, name = KINDS[key].place.partition(".")
    setup = Setup(base, tuple(json.loads(rules)), {})
    try:
        system = getattr(import_module(f"benchmarks.{module}"), name)(root, setup)
    except ImportError as error:
        raise Missing(f"{error.name} is not installed") from None
    note = ""
    if what == "read":
        system.answer("read", ("a/b/c/kib.txt",))  # so that what a first call imports is there
    _forget_peak()
    before = _peak()
    if what == "walk":
        system.answer("walk", ())
    else:
        try:
            got = system.answer("read", ("large.txt",))
            note = f"gives {len(got):,} characters"
        except OSError as error:
            note = f"refused: {type(error).__name__}"
    print(json.dumps({"bytes": _peak() - before, "note": note}))
    system.close()


if __name__ == "__main__":
    _main(*sys.argv[1:])
