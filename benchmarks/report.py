"""Writes what was measured: a table for every kind of work, the goals, and a picture.

Each Python version's results are kept in a file of their own, so that a run with one version, or of
one part, leaves the others as they are.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.goals import Outcome, outcomes, show
from benchmarks.measure import Case, Row, ratio

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.systems import Setup

PACKAGES = (
    "fsjail", "pathspec", "google-re2", "langchain-community", "deepagents", "pydantic-ai-harness",
    "mcp", "path-jail", "fsspec", "Send2Trash", "trash-cli", "typer",
)  # fmt: skip
PART_TITLES = {
    "read": "Reading",
    "write": "Writing",
    "list": "Listing",
    "walk": "Walking",
    "glob": "Glob",
    "grep": "Grep",
    "delete": "Deleting",
    "refused": "Refusing",
    "policy": "Deciding",
    "start": "Starting",
}
HEAD = """# What fsjail costs

Written by `make bench`. Each line's systems did the same work on the same files in turn, in one run;
the times are medians, with the middle half of the measurements beside them, and the last column says how
many times as long as fsjail a system took (above 1: fsjail is faster). Every answer was compared with
what the tree is known to hold; where a system's answer differs, its line says how.

fsjail has {rules} deny rules and its three presets in every line. A peer that knows rules ("deny
rules", pydantic-ai-harness, rg, git) has the same ones in its own syntax; the others have none, and show what
should be hidden. Peers are called at their own functions, without an agent framework around them.
"rg" behind a peer's name: it found ripgrep on its search path; a search that leaves the work to ripgrep
opens paths by name, so that a swapped directory leads it out.
"""


def line(case: Case, row: Row) -> str:
    """One row as text."""
    if row.median is None:
        return f"{row.title:<48} -  {row.note}"
    each = row.median / row.items
    over = "" if row.ratio is None else f"{row.ratio:8.2f} ×"
    item = f"  {duration(each)} each" if row.items > 1 else ""
    del case
    return f"{row.title:<48}{duration(row.median):>10}{over}{item}  {row.note}"


def duration(seconds: float) -> str:
    """A time with its unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}" if seconds < 1000 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def machine(folder: str) -> dict[str, str]:
    """What kind of machine it is; no names, no paths."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next(text.split(":", 1)[1].strip() for text in file if text.startswith("model name"))
    except (OSError, StopIteration):
        pass
    kernel = ".".join(platform.release().split("-")[0].split(".")[:2])
    return {
        "cpu": f"{model}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {kernel}",
        "filesystem": _filesystem(folder),
    }


def _filesystem(folder: str) -> str:
    best, kind = "", "unknown"
    try:
        with open("/proc/self/mounts", encoding="utf-8") as file:
            for text in file:
                _, where, name, *_ = text.split()
                inside = folder == where or folder.startswith(where.rstrip("/") + "/")
                if inside and len(where) >= len(best):
                    best, kind = where, name
    except OSError:
        pass
    return kind


def versions(setup: Setup) -> dict[str, str]:
    """The versions of all that was measured."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    for program in ("rg", "git", "node"):
        if program in setup.programs:
            said = subprocess.run(
                [setup.programs[program], "--version"], check=False, capture_output=True, text=True
            ).stdout
            found[program] = said.splitlines()[0].split()[-1] if program == "node" else _number(said)
    if "server" in setup.programs:
        package = Path(setup.programs["server"]).parent.parent / "package.json"
        found["@modelcontextprotocol/server-filesystem"] = json.loads(package.read_text())["version"]
    return found


def _number(said: str) -> str:
    return next((word for word in said.split() if word[0].isdigit()), "unknown")


def write(
    folder: Path,
    cases: Mapping[str, tuple[Case, list[Row]]],
    figures: Mapping[str, Mapping[str, Any]],
    setup: Setup,
    base: str,
    taken: float,
) -> str:
    """Add a run to the results and write the report and the picture.

    Args:
        folder: where the results are.
        cases: what was measured.
        figures: memory, in bytes.
        setup: for the versions.
        base: a folder on the file system that was measured.
        taken: seconds.

    Returns:
        what to tell the user.
    """
    short = ".".join(platform.python_version_tuple()[:2])
    path = folder / f"results-{short}.json"
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known = {**kept.get("cases", {}), **{key: _case(case, rows) for key, (case, rows) in cases.items()}}
    results = {
        "machine": machine(base),
        "versions": versions(setup),
        "rules": len(setup.rules),
        "cases": known,
        "figures": {**kept.get("figures", {}), **figures},
    }
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    everything = {
        file.stem.removeprefix("results-"): json.loads(file.read_text(encoding="utf-8"))
        for file in sorted(folder.glob("results-*.json"), key=_order)
    }
    (folder / "RESULTS.md").write_text("\n".join(_document(everything)) + "\n", encoding="utf-8")
    from benchmarks import picture  # noqa: PLC0415 - needs what is written above, and matplotlib perhaps

    drawn = picture.draw(everything, folder / "results.svg")
    said = [str(one) for one in outcomes_of(results)]
    return "\n".join([*said, f"measured in {taken:.0f} s", drawn])


def _order(file: Path) -> list[int]:
    return [int(part) for part in file.stem.removeprefix("results-").split(".")]


def _case(case: Case, rows: list[Row]) -> dict[str, Any]:
    return {
        "title": case.title,
        "items": case.items,
        "sync": case.sync,
        "rows": [
            {
                "key": row.key,
                "title": row.title,
                "group": row.group,
                "note": row.note,
                "items": row.items,
                "median": _short(row.median),
                "low": _short(row.low),
                "high": _short(row.high),
                "ratio": _short(row.ratio),
                "rounds": [_short(value) for value in row.rounds],
            }
            for row in rows
        ],
    }


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def outcomes_of(results: Mapping[str, Any]) -> list[Outcome]:
    """The goals, from results that were kept."""
    return outcomes({key: _read(key, case) for key, case in results["cases"].items()}, results["figures"])


def _read(key: str, case: Mapping[str, Any]) -> tuple[Case, list[Row]]:
    return Case(key, case["title"], [], case["items"], sync=case["sync"]), [
        Row(**row) for row in case["rows"]
    ]


def _document(everything: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield HEAD.format(rules=max(results["rules"] for results in everything.values()))
    for short, results in everything.items():
        yield from _section(short, results)


def _section(short: str, results: Mapping[str, Any]) -> Iterator[str]:
    yield f"## Python {short}\n"
    kind = results["machine"]
    yield f"{kind['cpu']}; {kind['system']}; {kind['filesystem']}.\n"
    yield ", ".join(f"{name} {number}" for name, number in results["versions"].items()) + ".\n"
    yield "### Goals\n"
    yield "Times are as on the machine on which the goals were set, by a fixed piece of work done in turn.\n"
    yield "| what | measured | goal | |"
    yield "|---|---|---|---|"
    for one in outcomes_of(results):
        value = "-" if one.value is None else f"{show(one.value)} {one.goal.unit}"
        mark = {True: "reached", False: "**missed**", None: "not measured"}[one.reached]
        note = f" ({one.remark})" if one.remark else ""
        yield f"| {one.goal.what} | {value} | {show(one.goal.most)} {one.goal.unit} | {mark}{note} |"
    yield ""
    for part, title in PART_TITLES.items():
        found = [case for key, case in results["cases"].items() if key.partition(".")[0] == part]
        if found:
            yield f"### {title}\n"
            for case in found:
                yield from _table(case)
    yield from _memory(results["figures"])
    yield from _growth([case for key, case in results["cases"].items() if key.startswith("growth.")])


def _table(case: Mapping[str, Any]) -> Iterator[str]:
    synced = f" ({case['sync']})" if case["sync"] else ""
    yield f"**{case['title']}**{synced}\n"
    each = case["items"] > 1
    yield f"| system | median | middle half |{' each |' if each else ''} × fsjail | |"
    yield f"|---|---:|---:|{'---:|' if each else ''}---:|---|"
    for row in case["rows"]:
        if row["group"] == "clock":
            continue
        if row["median"] is None:
            yield f"| {row['title']} | - | - |{' - |' if each else ''} - | {row['note']} |"
            continue
        spread = f"{duration(row['low'])} - {duration(row['high'])}"
        item = f" {duration(row['median'] / row['items'])} |" if each else ""
        times = f"{row['ratio']:.2f}" if row["ratio"] < 100 else f"{row['ratio']:,.0f}"  # noqa: PLR2004
        yield f"| {row['title']} | {duration(row['median'])} | {spread} |{item} {times} | {row['note']} |"
    yield ""


def _memory(figures: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    if not figures:
        return
    yield "### Memory\n"
    yield "How far the peak of the process grew; a walk's with the names that it remembers, within a bound.\n"
    yield "| what | MiB | |"
    yield "|---|---:|---|"
    for figure in figures.values():
        size = figure.get("bytes")
        yield f"| {figure['title']} | {'-' if size is None else f'{size / 2**20:.1f}'} | {figure['note']} |"
    yield ""


def _growth(cases: list[Mapping[str, Any]]) -> Iterator[str]:
    if not cases:
        return
    yield "### Growth\n"
    yield "Cost of one item at each size, and how many times the first the last is: near 1 is flat.\n"
    yield "| what | system | cost of one | last / first |"
    yield "|---|---|---|---:|"
    for case in cases:
        for system, name in (("fsjail", "fsjail"), ("bare", "os and pathlib")):
            rows = [row for row in case["rows"] if row["key"].startswith(f"{system}@") and row["median"]]
            if not rows:
                continue
            costs = ", ".join(
                f"{int(row['key'].partition('@')[2]):,}: {duration(row['median'] / row['items'])}"
                for row in rows
            )
            first, last = rows[0], rows[-1]
            grown = ratio(last["rounds"], first["rounds"]) * first["items"] / last["items"]
            yield f"| {case['title']} | {name} | {costs} | {grown:.2f} |"
    yield ""
