"""Answers of all systems in one form, and what they have to be.

Every operation's answer is made comparable by the function of its name; a difference is either
one that the system is known for, and becomes a note in its row, or it stops the run.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.trees import denied


class Mismatch(AssertionError):
    """A system's answer is not what the tree holds."""


def _name(path: object, root: str) -> str:
    text = str(path)
    if text.startswith(root + "/"):
        text = text[len(root) + 1 :]
    return text.removeprefix("/").removeprefix("./").rstrip("/")


def _texts(answer: object) -> list[str]:
    """Lines of an answer that is one text for a model, or a list."""
    if isinstance(answer, str):
        if answer.startswith(("['", '["', "[]")):  # a list as Python writes it, perhaps with a notice below
            found = [str(item) for item in ast.literal_eval(answer.partition("\n")[0])]
            return [text for text in found if not text.startswith("... [")]  # "results truncated"
        return [text for text in answer.splitlines() if not text.startswith("[")]  # a notice of a peer
    assert isinstance(answer, Iterable)  # noqa: S101 - what the adapters give
    return [_path_of(item) for item in answer]


def _path_of(item: Any) -> str:
    for attribute in ("path", "name"):
        if isinstance(item, dict) and (attribute in item):
            return str(item[attribute])
        if isinstance(getattr(item, attribute, None), str):
            return str(getattr(item, attribute))
    return str(item[0]) if isinstance(item, tuple) else str(item)


def names(answer: object, root: str) -> set[str]:
    """The names in a listing or from a glob, relative to the root."""
    return {_name(text, root) for text in _texts(answer)} - {"", "."}


def listing(answer: object, root: str) -> set[str]:
    """The last components in a listing."""
    found = set()
    for text in _texts(answer):
        bare = re.sub(r"^\[(FILE|DIR)\] ", "", text)
        bare = re.sub(r"\s+\(\d[^)]*\)$", "", bare)
        found.add(os.path.basename(_name(bare, root)))
    return found - {"", ".", ".fsjail"}


def hits(answer: object, root: str) -> set[tuple[str, int]]:
    """The lines that a search found, as (name, number)."""
    found = set()
    heading = ""
    items = answer.splitlines() if isinstance(answer, str) else answer
    assert isinstance(items, Iterable)  # noqa: S101 - what the adapters give
    for item in items:
        if isinstance(item, str):
            if listed := re.match(r"\s+(\d+): ", item):
                found.add((_name(heading, root), int(listed[1])))
            elif line := re.match(r"(.+?):(\d+):", item):
                found.add((_name(line[1], root), int(line[2])))
            else:
                heading = item.removesuffix(":")
        elif isinstance(item, dict):
            found.add((_name(item["path"], root), int(item["line"])))
        elif isinstance(item, tuple):
            found.add((_name(item[0], root), item[1]))
        else:
            found.add((_name(item.path, root), item.line))
    return found


FORMS: dict[str, Callable[[Any, str], Any]] = {"glob": names, "listing": listing, "grep": hits}


def compare(  # noqa: PLR0911 - a list of differences
    op: str, answer: object, root: str, right: set[Any] | int | str, *, ruled: bool
) -> str:
    """Compare an answer with what is in the tree.

    Args:
        op: the operation.
        answer: as the system gave it.
        root: that its paths may begin with.
        right: what has to come, denied names included.
        ruled: whether the system knows the rules.

    Returns:
        a note about a difference that is known, or nothing.

    Raises:
        Mismatch: it is another one.
    """
    if op == "read":
        return _compare_text(str(answer), str(right))
    form = FORMS.get(op)
    if form is None:
        if answer != right:
            raise Mismatch(f"{op}: {answer!r}, not {right!r}")
        return ""
    got = form(answer, root)
    assert isinstance(right, set)  # noqa: S101 - of the operations in FORMS
    hidden = {item for item in right if denied(item[0] if isinstance(item, tuple) else item)}
    shown = right - hidden
    if got == shown:
        return ""
    if got == right and not ruled:
        return f"shows {len(hidden)} denied too" if hidden else ""
    dotted = {item for item in shown if _dotted(item)}
    if got == shown - dotted or (not ruled and got == right - {item for item in right if _dotted(item)}):
        return "leaves dot files out"
    if got < shown:
        return f"not complete: {len(got)} of {len(shown)}"
    extra, lacking = sorted(got - right)[:3], sorted(shown - got)[:3]
    leaked = len(got & hidden)
    if not extra and not lacking and leaked:
        return f"shows {leaked} denied"
    raise Mismatch(f"{op}: {len(got)} of {len(shown)}; too many: {extra}; lacking: {lacking}")


def _dotted(item: Any) -> bool:
    path = item[0] if isinstance(item, tuple) else item
    return any(part.startswith(".") for part in path.split("/"))


def _compare_text(answer: str, right: str) -> str:
    if answer == right:
        return ""
    lines = right.splitlines()
    if all(line.strip() in answer for line in lines[:3] + lines[-3:]):
        return "numbers the lines" if "\t" in answer else ""
    raise Mismatch(f"read: {answer[:80]!r}…, not {right[:80]!r}…")
