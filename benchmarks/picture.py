"""Draws the chart that the README shows: how many times as long as fsjail the others take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Cases that a reader knows from an agent's work; in each, fsjail and what people use instead.
SHOWN = (
    ("read.1k", "read 1 KiB"),
    ("list.s", "list 100 entries"),
    ("glob.s", "glob **/*.py, 5,000 files"),
    ("grep.literal.s", "grep, 5,000 files"),
)
SYSTEMS = (
    ("fsjail", "fsjail", "#2f7ed8"),
    ("langchain", "langchain FileManagementToolkit", "#8a9a5b"),
    ("deepagents", "deepagents FilesystemBackend", "#c9a227"),
    ("deepagents-rg", "deepagents FilesystemBackend, rg", "#c9a227"),
    ("deepagents-rules", "deepagents tools, deny rules", "#d9822b"),
    ("deepagents-rules-rg", "deepagents tools, deny rules, rg", "#d9822b"),
    ("pydantic-ai", "pydantic-ai-harness FileSystem", "#c0504d"),
    ("pydantic-ai-rg", "pydantic-ai-harness FileSystem, rg", "#c0504d"),
    ("mcp", "MCP reference server", "#9467bd"),
)
NAMES_ONLY = {("list.s", "langchain"): "names only"}
LEFT = 0.1  # where the bars begin: a bar shorter than fsjail's is a system that is faster
INK = "#808890"  # legible on white and on black


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar, and what stands beside it."""

    name: str
    colour: str
    ratio: float
    label: str


def draw(everything: Mapping[str, Mapping[str, Any]], path: Path) -> str:
    """Draw the picture of the first Python version's results.

    Args:
        everything: the results by version.
        path: the SVG file.

    Returns:
        what to tell the user.
    """
    try:
        import matplotlib as mpl  # noqa: PLC0415 - optional
    except ImportError:
        return "no picture: matplotlib is not installed"
    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the choice of what draws

    short, results = next(iter(everything.items()))
    shown = [(key, title) for key, title in SHOWN if key in results["cases"]]
    if not shown:
        return "no picture: none of its cases was measured"
    settings: Any = {
        "svg.fonttype": "path",  # the same everywhere
        "svg.hashsalt": "fsjail",
        "text.color": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.edgecolor": INK,
        "font.size": 9,
    }
    with plt.rc_context(settings):
        bars = _bars(results, shown)
        height = 0.24 * sum(len(rows) + 1.6 for _, rows in bars) + 0.5
        figure, axes = plt.subplots(figsize=(8.6, height))
        _fill(axes, bars)
        axes.set_xlabel(f"times as long as fsjail, Python {short} (shorter is better; logarithmic)")
        figure.tight_layout()
        figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
        plt.close(figure)
    return f"wrote {path.name}"


def _bars(results: Mapping[str, Any], shown: list[tuple[str, str]]) -> list[tuple[str, list[Bar]]]:
    """The bars of each case."""
    from benchmarks.report import duration  # noqa: PLC0415 - it imports this module

    found = []
    for key, title in shown:
        rows = {row["key"]: row for row in results["cases"][key]["rows"] if row["median"]}
        bars = []
        for system, name, colour in SYSTEMS:
            if system not in rows:
                continue
            ratio, seconds = rows[system]["ratio"], duration(rows[system]["median"])
            times = f"{ratio:.2g} ×" if ratio < 10 else f"{ratio:,.0f} ×"  # noqa: PLR2004 - two places at most
            parts = [seconds] if system == "fsjail" else [times, seconds, NAMES_ONLY.get((key, system), "")]
            bars.append(Bar(name, colour, ratio, "   ".join(filter(None, parts))))
        found.append((title, bars))
    return found


def _fill(axes: Any, bars: list[tuple[str, list[Bar]]]) -> None:
    at = 0.0
    largest = max(bar.ratio for _, rows in bars for bar in rows)
    for title, rows in bars:
        axes.text(LEFT, at, title, ha="left", va="center", weight="bold")
        at += 1
        for bar in rows:
            weight = "bold" if bar.name == "fsjail" else "normal"
            axes.barh(at, max(bar.ratio - LEFT, 0.01), left=LEFT, height=0.78, color=bar.colour)
            axes.text(max(bar.ratio, LEFT) * 1.08, at, bar.label, ha="left", va="center")
            axes.text(LEFT * 0.9, at, bar.name, ha="right", va="center", weight=weight)
            at += 1
        at += 0.6
    axes.set_xscale("log")
    axes.set_xlim(LEFT, largest * 8)
    axes.set_ylim(at - 0.6, -0.8)
    axes.set_yticks([])
    ticks = [tick for tick in (0.1, 1, 10, 100, 1000) if tick <= largest * 8]
    axes.set_xticks(ticks, [f"{tick:g} ×" for tick in ticks])
    axes.minorticks_off()
    axes.axvline(1, color=INK, linewidth=0.8, linestyle=":", zorder=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
