"""Reads `fsjail.toml`, or `[tool.fsjail]` in `pyproject.toml`, into what a jail is made of.

The file belongs to the folder it stands in: that folder is the root. The user's and the site's
files lie over it and can only tighten. What cannot work is a ``ConfigError`` with file and line,
never a silent default: a misspelt ``deny`` would be a hole.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fsjail import _dirs
from fsjail._errors import ConfigError
from fsjail._keys import KEYS, PRESETS, Expect, File, Place
from fsjail._limits import Limits
from fsjail._policy import Policy, Rule, Rules
from fsjail._toml import lines_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsjail._toml import TomlPath

__all__ = ["FILE_NAME", "PROJECT_FILE", "Expect", "Settings", "load"]

FILE_NAME = "fsjail.toml"
PROJECT_FILE = "pyproject.toml"

_UNLIMITED = dict.fromkeys(key.removeprefix("limits.") for key in KEYS if key.startswith("limits."))
_MAX_BYTES = 2**20  # of a configuration file; parsing more would let a planted file stall the host


@dataclass(frozen=True, slots=True)
class Settings:
    """What the configuration files say, together.

    Attributes:
        root: the folder that holds the project's file; where the search began if there is none.
        policy: the rules, with those of the user's and the site's file added.
        limits: the smaller of all files' limits.
        actor: the name that the log and the trash note.
        record: what the log holds, "denied+changes" or "all".
        required: whether an operation is refused when it cannot be logged.
        log_bytes: bytes of a file of the log at which it is rotated; ``None``: the log's own.
        log_files: how many rotated files of the log stay; ``None``: the log's own.
        export: the names of the exporters that get every event.
        keep_days: age in days after which the trash may be purged; ``None`` keeps.
        keep_bytes: bytes the trash may hold before the oldest may be purged; ``None`` keeps.
        trash_location: an absolute folder outside the root for the trash; ``None``: in the root.
        durability: whether changes are synced to the disk, "full" or "none".
        tripwires: paths outside the root to watch, as written.
        unexplained: whether a watch reports every change that no record of the jail explains.
        expects: the `[[expect]]` cases.
        sources: the names of the files that were read, the project's first.
    """

    root: Path
    policy: Policy = field(default_factory=Policy)
    limits: Limits = field(default_factory=Limits)
    actor: str | None = None
    record: Literal["denied+changes", "all"] = "denied+changes"
    required: bool = False
    log_bytes: int | None = None
    log_files: int | None = None
    export: tuple[str, ...] = ()
    keep_days: float | None = None
    keep_bytes: int | None = None
    trash_location: str | None = None
    durability: Literal["full", "none"] = "full"
    tripwires: tuple[str, ...] = ()
    unexplained: bool = True
    expects: tuple[Expect, ...] = ()
    sources: tuple[str, ...] = ()


def load(start: str | os.PathLike[str] = ".") -> Settings:
    """Read the configuration that holds for a folder.

    Args:
        start: where to look first; then each folder above it.

    Returns:
        The settings. Without any file: ``start`` itself with the default policy.

    Raises:
        ConfigError: a file cannot be read or says something that cannot work.
        OSError: ``start`` is missing or is no folder.
    """
    begin = os.stat(start)
    if not stat.S_ISDIR(begin.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fspath(start))
    root, source = _find(Path(os.path.realpath(start)), begin.st_uid)
    values = source.values() if source else {}
    limits = Limits(**_limits_of(values))
    policy = _policy_of(values, source.name if source else "", dropped=values.get("drop_presets", ()))
    if source and source.name == PROJECT_FILE:
        # An agent that may write "*" must not rewrite its own rules there.
        policy = policy.guarded([("write", f"/{PROJECT_FILE}")])
    sources = [source.name] if source else []
    record: Literal["denied+changes", "all"] = values.get("audit.record", "denied+changes")
    required = values.get("audit.required", False)
    export = list(values.get("audit.export", ()))
    tripwires = list(values.get("watch.tripwires", ()))
    unexplained = values.get("watch.unexplained", True)
    for over in _tightening():
        added = over.values()
        policy = policy.tightened(_policy_of(added, over.name, dropped=PRESETS))
        limits = limits.tightened(Limits(**(_UNLIMITED | _limits_of(added))))
        record = "all" if "all" in (record, added.get("audit.record")) else record
        required = required or added.get("audit.required", False)
        export += added.get("audit.export", ())
        tripwires += [path for path in added.get("watch.tripwires", ()) if path not in tripwires]
        unexplained = unexplained or added.get("watch.unexplained", False)
        sources.append(over.name)
    return Settings(
        root=root,
        policy=policy,
        limits=limits,
        actor=values.get("actor"),
        record=record,
        required=required,
        log_bytes=values.get("audit.max_bytes"),
        log_files=values.get("audit.keep"),
        export=tuple(dict.fromkeys(export)),
        keep_days=values.get("trash.keep_days"),
        keep_bytes=values.get("trash.keep_bytes"),
        trash_location=_outside(root, source, values.get("trash.location")),
        durability=values.get("trash.durability", "full"),
        tripwires=tuple(tripwires),
        unexplained=unexplained,
        expects=tuple(values.get("expect", ())),
        sources=tuple(sources),
    )


def _policy_of(values: dict[str, Any], source: str, *, dropped: Iterable[str]) -> Policy:
    rules = {
        key: [Rule(pattern, source, line) for pattern, line in values[key]]
        for key in ("read.allow", "read.deny", "write.allow", "write.deny")
        if key in values
    }
    return Policy(
        read=Rules(allow=rules.get("read.allow"), deny=rules.get("read.deny")),
        write=Rules(allow=rules.get("write.allow"), deny=rules.get("write.deny")),
        presets=[preset for preset in PRESETS if preset not in dropped],
    )


def _limits_of(values: dict[str, Any]) -> dict[str, Any]:
    table = "limits."
    return {key.removeprefix(table): value for key, value in values.items() if key.startswith(table)}


# --- files -----------------------------------------------------------------------------------------


def _find(begin: Path, owner: int) -> tuple[Path, File | None]:
    """Walk up to the first folder whose file is for us; `fsjail.toml` wins over `pyproject.toml`."""
    for folder in (begin, *begin.parents):
        for name in (FILE_NAME, PROJECT_FILE):
            found = _read(folder / name, name)
            if found is None:
                continue
            data: Any = found.data
            prefix: tuple[str, ...] = ()
            if name == PROJECT_FILE:
                tool = data.get("tool")
                if not isinstance(tool, dict) or "fsjail" not in tool:
                    continue
                data, prefix = tool["fsjail"], ("tool", "fsjail")
            # Another user may plant a file in a shared folder above (/tmp): it would move the root and
            # widen the rules.
            if folder != begin and found.owner not in (0, os.geteuid(), owner):
                raise ConfigError("stands in a folder above and belongs to another user", name)
            # Behind a link the rules may stand under a name that the agent may write.
            if found.linked:
                raise ConfigError("is a symbolic link; the rules must stand in the file itself", name)
            return folder, File(name, data, prefix, found.lines)
    return begin, None


def _tightening() -> Iterable[File]:
    over = [("user", _dirs.user_config()), *(("site", path) for path in _dirs.site_configs())]
    for whose, path in over:
        name = f"{whose} {path.name}"
        if found := _read(path, name):
            yield File(name, found.data, (), found.lines, tightens=True)


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A file's content, and who could have put it there."""

    data: dict[str, Any]
    lines: dict[TomlPath, int]
    owner: int
    linked: bool


def _read(path: Path, name: str) -> _Parsed | None:
    """Open and parse a file; ``None`` if there is none."""
    # Not blocking: a FIFO under this name must not hang the host.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    linked = False
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        linked = error.errno == errno.ELOOP
        if not linked:
            raise ConfigError(f"cannot be read: {error.strerror}", name) from None
    if linked:
        try:
            descriptor = os.open(path, flags)
        except OSError as error:  # a link that dangles is no missing file: somebody meant rules to be there
            raise ConfigError(f"is a link that cannot be followed: {error.strerror}", name) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError("is no regular file", name)
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            raw = stream.read(_MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(raw) > _MAX_BYTES:
        raise ConfigError(f"is larger than {_MAX_BYTES} bytes", name)
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8", name, raw.count(b"\n", 0, error.start) + 1) from None
    try:
        return _Parsed(tomllib.loads(text), lines_of(text), status.st_uid, linked)
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).partition(" (at ")
        line = re.match(r"line (\d+)", place)
        raise ConfigError(message, name, int(line[1]) if line else text.count("\n") + 1) from None
    except (ValueError, RecursionError) as error:
        # Beyond the grammar: a number of 5000 digits, arrays nested a thousand deep.
        raise ConfigError(f"cannot be parsed: {error}", name) from None


def _outside(root: Path, source: File | None, location: str | None) -> str | None:
    """Make the trash folder absolute; inside the root only `.fsjail` is guarded from every rule."""
    if source is None or location is None:
        return None
    real = os.path.realpath(root / os.path.expanduser(location))
    if Path(real).is_relative_to(root):
        Place(source, ("trash", "location")).fail(
            "trash.location must lie outside the root; leave it out to keep the trash in .fsjail"
        )
    return real
