"""Every key that a configuration file may hold, and how its value is read.

A table, so that the reader, the schema for editors and the list of known names in an error
cannot drift apart. Nothing here touches the disk.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from fsjail._errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fsjail._toml import TomlPath

PRESETS = ("secrets", "vcs", "toolchain")
OPERATIONS = ("read", "list", "write", "edit", "mkdir", "delete", "copy", "move")
RECORDS = ("denied+changes", "all")
EXPORTERS = ("logging", "otel")

_TOO_MUCH = 2**63
_UNITS = {"": 1, "B": 1}
_UNITS |= {f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", 1)}
_UNITS |= {f"{prefix}B": 1000**power for power, prefix in enumerate("kMGT", 1)}
_UNIT_NAMES = ", ".join(filter(None, _UNITS))
_SIZE = re.compile(r"(\d+(?:_\d+)*(?:\.\d+)?) ?([A-Za-z]*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Expect:
    """One `[[expect]]` case: an operation, and whether the policy is meant to allow it."""

    op: str
    path: str
    allowed: bool
    to: str | None = None
    file: str = ""
    line: int | None = None


@dataclass(frozen=True, slots=True)
class File:
    """One parsed file: its name as rules and messages show it, and the table that is ours."""

    name: str
    table: Any
    prefix: TomlPath
    lines: dict[TomlPath, int]
    tightens: bool = False

    def values(self) -> dict[str, Any]:
        """Check every key and give the values by their dotted names."""
        here = Place(self, ())
        values = {}
        for key, value in here.table(self.table).items():
            inside = here.below(key)
            names = [name.removeprefix(f"{key}.") for name in KEYS if name.startswith(f"{key}.")]
            if not names:
                values[key] = _known(inside, [name.partition(".")[0] for name in KEYS])(inside, value)
                continue
            for name, entry in inside.table(value).items():
                place = inside.below(name)
                values[place.name] = _known(place, names)(place, entry)
        return values


@dataclass(frozen=True, slots=True)
class Place:
    """A key or item in a file: what an error points at."""

    file: File
    path: TomlPath

    @property
    def name(self) -> str:
        return ".".join(str(part) for part in self.path or self.file.prefix)

    @property
    def line(self) -> int | None:
        return self.file.lines.get((*self.file.prefix, *self.path))

    def below(self, part: str | int) -> Place:
        return Place(self.file, (*self.path, part))

    def fail(self, message: str) -> NoReturn:
        raise ConfigError(message, self.file.name, self.line)

    def wrong(self, wanted: str, value: object) -> NoReturn:
        """Fail with what was wanted and the kind of what is there; the value itself may be a secret."""
        kinds = {bool: "a boolean", int: "an integer", float: "a float", str: "a string"}
        kinds |= {list: "an array", dict: "a table"}
        self.fail(f"{self.name} must be {wanted}, not {kinds.get(type(value), 'a date or time')}")

    def table(self, value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.wrong("a table", value)
        return value


def _known(place: Place, names: Iterable[str]) -> Callable[[Place, Any], Any]:
    """Give the reader of a key; an unknown one fails with the name that was probably meant."""
    wrong = str(place.path[-1])
    # A quoted key may hold a dot: "read.deny" at the top is not [read] deny.
    key = None if "." in wrong else KEYS.get(place.name)
    if key is None:
        from difflib import get_close_matches  # noqa: PLC0415 - imported when needed: start-up time

        names = list(dict.fromkeys(names))
        near = get_close_matches(wrong, names, n=1)
        known = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(names)}"
        table = f" in [{place.path[0]}]" if len(place.path) > 1 else ""
        place.fail(f"unknown key {wrong!r}{table}; {known}")
    reader, may_tighten = key
    if place.file.tightens and not may_tighten:
        place.fail(
            f"{place.name} belongs in the project's own file: this one lies over every project and can only "
            "tighten (read.deny, write.deny, limits, audit, watch)"
        )
    return reader


def _string(place: Place, value: object) -> str:
    if not isinstance(value, str):
        place.wrong("a string", value)
    return value


def _text(place: Place, value: object) -> str:
    text = _string(place, value)
    if not text or not text.isprintable():
        place.fail(f"{place.name} must be a printable text that is not empty")
    return text


def _flag(place: Place, value: object) -> bool:
    if not isinstance(value, bool):
        place.wrong("true or false", value)
    return value


def _items(place: Place, value: object) -> Iterable[tuple[Place, Any]]:
    if not isinstance(value, list):
        place.wrong("an array", value)
    return ((place.below(index), item) for index, item in enumerate(value))


def _one_of(names: tuple[str, ...]) -> Callable[[Place, Any], str]:
    def read(place: Place, value: object) -> str:
        if value not in names:
            place.fail(f"{place.name} must be one of: {', '.join(names)}")
        return str(value)

    return read


def _presets(place: Place, value: object) -> tuple[str, ...]:
    return tuple(_one_of(PRESETS)(inside, item) for inside, item in _items(place, value))


def _exports(place: Place, value: object) -> tuple[str, ...]:
    return tuple(_one_of(EXPORTERS)(inside, item) for inside, item in _items(place, value))


def _patterns(place: Place, value: object) -> tuple[tuple[str, int | None], ...]:
    return tuple((_string(inside, item), inside.line) for inside, item in _items(place, value))


def _number(*, whole: bool, zero: bool) -> Callable[[Place, Any], Any]:
    wanted = f"a {'whole ' if whole else ''}number {'of at least' if zero else 'above'} 0"

    def read(place: Place, value: object) -> Any:
        kinds = (int,) if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            place.wrong(wanted, value)
        # NaN fails every comparison; TOML's own integers end below 2**63.
        if not 0 <= value < _TOO_MUCH or (value == 0 and not zero):
            place.fail(f"{place.name} must be {wanted} and below 2**63")
        return value

    return read


def _size(*, zero: bool) -> Callable[[Place, Any], int]:
    number = _number(whole=True, zero=zero)

    def read(place: Place, value: object) -> int:
        if isinstance(value, str):
            found = _SIZE.fullmatch(value)
            if not found or found[2] not in _UNITS:
                place.fail(
                    f'{place.name} must be a size such as 10_000, "10 MiB" or "2 GB"; units: {_UNIT_NAMES}'
                )
            value = int(min(float(found[1]) * _UNITS[found[2]], _TOO_MUCH))
        return int(number(place, value))

    return read


def _tripwires(place: Place, value: object) -> tuple[str, ...]:
    paths = []
    for inside, item in _items(place, value):
        if not _text(inside, item).startswith(("/", "~")):
            inside.fail("a tripwire lies outside the root: it must begin with / or ~")
        paths.append(item)
    return tuple(paths)


def _expects(place: Place, value: object) -> tuple[Expect, ...]:
    return tuple(_expect(inside, item) for inside, item in _items(place, value))


def _expect(place: Place, value: object) -> Expect:
    table = place.table(value)
    readers: dict[str, Callable[[Place, Any], Any]] = EXPECT_KEYS
    for key in table:
        if key not in readers:
            place.below(key).fail(f"unknown key {key!r} in [[expect]]; known here: {', '.join(readers)}")
    given = {key: readers[key](place.below(key), item) for key, item in table.items()}
    two = given.get("op") in ("copy", "move")
    for key in ("op", "path", "allowed", *(["to"] if two else [])):
        if key not in given:
            place.fail(f"[[expect]] needs {key!r}")
    if "to" in given and not two:
        place.below("to").fail(f"'to' belongs to copy and move, not to {given['op']}")
    return Expect(**given, file=place.file.name, line=place.line)


EXPECT_KEYS = {"op": _one_of(OPERATIONS), "path": _string, "allowed": _flag, "to": _string}

# Every key: how it is read, and whether the user's and the site's file may hold it.
KEYS: dict[str, tuple[Callable[[Place, Any], Any], bool]] = {
    "actor": (_text, False),
    "drop_presets": (_presets, False),
    "read.allow": (_patterns, False),
    "read.deny": (_patterns, True),
    "write.allow": (_patterns, False),
    "write.deny": (_patterns, True),
    "limits.max_read_bytes": (_size(zero=False), True),
    "limits.max_write_bytes": (_size(zero=False), True),
    "limits.max_total_bytes": (_size(zero=False), True),
    "limits.max_results": (_number(whole=True, zero=False), True),
    "limits.max_seconds": (_number(whole=False, zero=False), True),
    "trash.location": (_text, False),
    "trash.durability": (_one_of(("full", "none")), False),
    "trash.keep_days": (_number(whole=False, zero=True), False),
    "trash.keep_bytes": (_size(zero=True), False),
    "audit.record": (_one_of(RECORDS), True),
    "audit.required": (_flag, True),
    "audit.max_bytes": (_size(zero=False), False),
    "audit.keep": (_number(whole=True, zero=False), False),
    "audit.export": (_exports, True),
    "watch.tripwires": (_tripwires, True),
    "watch.unexplained": (_flag, True),
    "expect": (_expects, False),
}
