"""``fsjail inspect`` and ``fsjail tree``: what an agent sees."""

from __future__ import annotations

import os
import posixpath
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fsjail._errors import ConfigError
from fsjail.cli import _say
from fsjail.cli._ask import place, rule_document
from fsjail.cli._log import event_document, event_row
from fsjail.cli._open import jail_at, settings_at
from fsjail.cli._probes import abilities
from fsjail.cli._survey import Counts, Seen, survey

if TYPE_CHECKING:
    from fsjail._jail import Jail

_COLOURS = {"rw": "green", "r-": None, "x-": "dim", "--": "red"}
_DENIALS = 5
LISTS = ("read.allow", "read.deny", "write.allow", "write.deny")


def rules_of(jail: Jail) -> dict[str, list[Any] | None]:
    """Give the four lists as they stand in the policy; None for one that is absent."""
    found: dict[str, list[Any] | None] = {}
    for label in LISTS:
        access, kind = label.split(".")
        rules = getattr(getattr(jail.policy, access), kind)
        found[label] = None if rules is None else list(rules)
    return found


def inspect(root: str | None, *, as_json: bool) -> int:
    """Show root, rules with their places, counts, trash, last refusals, and this machine.

    Returns:
        0.
    """
    settings = settings_at(root)
    with jail_at(root) as jail:
        counts = Counts()
        with _say.counting("names looked at") as step:
            for seen in survey(jail, hidden=True):
                counts.add(seen)
                step()
        items = jail.trash.items()
        denials = jail.audit.tail(_DENIALS, denied=True)[0]
        lists = rules_of(jail)
        document: dict[str, Any] = {
            "root": str(jail.root),
            "sources": list(settings.sources),
            "policy": {
                label: None if rules is None else [rule_document(rule) for rule in rules]
                for label, rules in lists.items()
            }
            | {"presets": list(jail.policy.presets), "warnings": list(jail.policy.warnings)},
            "limits": asdict(settings.limits),
            "counts": asdict(counts),
            "trash": {"items": len(items), "bytes": sum(item.size for item in items)},
            "denials": [event_document(event) for event in denials],
            "machine": [asdict(ability) for ability in abilities()],
        }
        if as_json:
            _say.emit(document)
            return 0
        _print_sources(document)
        _print_counts(counts)
        _print_rules(lists, document["policy"])
        _print_rest(document, [event_row(event) for event in denials])
    return 0


def _print_sources(document: dict[str, Any]) -> None:
    bold = _say.painter()
    _say.say(f"{bold('bold', 'Root')}      {_say.safe(document['root'])}")
    if document["sources"]:
        names = ", ".join(document["sources"])
    else:
        names = "no file: everything but the presets can be read, nothing written; see `fsjail init`"
    _say.say(f"{bold('bold', 'Rules in')}  {_say.safe(names)}")


def _print_counts(counts: Counts) -> None:
    _say.say()
    _say.say(_say.painter()("bold", "An agent"))
    for what, count in (
        ("may read", counts.readable),
        ("may write", counts.writable),
        ("only passes through", counts.passed),
        ("does not see", counts.hidden),
    ):
        if count or what != "only passes through":
            _say.say(f"  {what:<20} {_say.number(count, 'name'):>12}")
    if counts.unlisted:
        _say.say(f"  {_say.number(counts.unlisted, 'folder')} could not be listed by you and is not counted")


def _print_rules(lists: dict[str, list[Any] | None], policy: dict[str, Any]) -> None:
    paint = _say.painter()
    _say.say()
    _say.say(paint("bold", "Rules"))
    for label, rules in lists.items():
        if rules is None:
            default = {"read.allow": "everything in the root", "write.allow": "nothing"}.get(label, "nothing")
            _say.say(f"  {label:<12} (not given: {default})")
            continue
        if not rules:
            _say.say(f"  {label:<12} {'nothing' if label.endswith('allow') else '-'}")
        for index, rule in enumerate(rules):
            _say.say(f"  {label if index == 0 else '':<12} {_say.safe(place(rule))}")
    _say.say(f"  {'presets':<12} {', '.join(policy['presets']) or 'none'}")
    for warning in policy["warnings"]:
        _say.say(paint("yellow", f"  warning: {_say.safe(str(warning))}"))


def _print_rest(document: dict[str, Any], denials: list[tuple[str, ...]]) -> None:
    paint = _say.painter()
    trash = document["trash"]
    _say.say()
    items = _say.number(trash["items"], "item")
    _say.say(f"{paint('bold', 'Trash')}     {items}, {_say.size(trash['bytes'])}")
    _say.say()
    _say.say(paint("bold", "Last refusals") + ("" if denials else "  none"))
    if denials:
        _say.table(("TIME", "WHO", "WHAT", "PATH", "OUTCOME", "WHY"), denials)
    _say.say()
    _say.say(paint("bold", "This machine"))
    for ability in document["machine"]:
        word = paint("green", "yes") if ability["works"] else paint("yellow", "no ")
        _say.say(f"  {ability['name']:<26} {word}  {ability['note']}")


def tree(root: str | None, path: str, depth: int | None, *, as_json: bool) -> int:
    """List names with what an agent may do with each.

    Returns:
        0.

    Raises:
        FileNotFoundError, NotADirectoryError: nothing to list there.
        ConfigError: the path is not below the root.
    """
    with jail_at(root) as jail:
        start = _start(str(jail.root), path)
        names = survey(jail, start, depth=depth) if depth != 0 else iter(())
        counts = Counts()
        if as_json:
            entries = []
            with _say.counting("names looked at") as step:
                for seen in names:
                    counts.add(seen)
                    entries.append(_entry(seen))
                    step()
            _say.emit({"root": str(jail.root), "path": start, "entries": entries, "counts": asdict(counts)})
            return 0
        _say.say(f"    {_say.safe(str(jail.root) if start == '.' else start + '/')}")
        _draw(str(jail.root), names, counts)
        _say.say()
        parts = [f"rw {counts.writable:,}", f"r- {counts.readable - counts.writable:,}"]
        if counts.passed:
            parts.append(f"x- {counts.passed:,} only passed through")
        parts.append(f"-- {counts.hidden:,} hidden")
        _say.say("    " + ", ".join(parts))
    return 0


def _start(base: str, path: str) -> str:
    """Find the canonical name of the folder to begin with; the owner may name any in the root."""
    real = os.path.realpath(posixpath.join(base, path))
    home = os.path.realpath(base)
    if real != home and not real.startswith(home.rstrip("/") + "/"):
        raise ConfigError("is not in the root", file=path)
    return os.path.relpath(real, home)


def _entry(seen: Seen) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "path": seen.path,
        "kind": seen.kind,
        "read": seen.read,
        "write": seen.write,
        "passes": seen.passes,
    }
    return entry if seen.error is None else entry | {"error": seen.error}


def _draw(base: str, names: Any, counts: Counts) -> None:
    """Draw the names as they come; nothing is held back, so a reader may stop early."""
    paint = _say.painter()
    tee, end, bar = ("├── ", "└── ", "│   ") if _say.can_print("├└│─") else ("|-- ", "`-- ", "|   ")
    bars: list[str] = []
    for seen in names:
        counts.add(seen)
        del bars[seen.depth :]
        branch = end if seen.last else tee
        colour = _COLOURS.get(seen.mark)
        text = _label(base, seen)
        text = text if colour is None else paint(colour, text)
        _say.say(f"{seen.mark}  {''.join(bars)}{branch}{text}")
        bars.append("    " if seen.last else bar)


def _label(base: str, seen: Seen) -> str:
    name = _say.safe(seen.path.rpartition("/")[2])
    if seen.kind == "directory":
        return name + "/" + (f"  ({seen.error})" if seen.error else "")
    if seen.kind == "link":
        return f"{name} -> {_target(f'{base}/{seen.path}')}"
    return name if seen.kind == "file" else f"{name}  (no regular file)"


def _target(path: str) -> str:
    try:
        return _say.safe(os.readlink(path))
    except OSError:
        return "?"
