"""``fsjail init``: writes a first configuration and tells what it allows."""

from __future__ import annotations

import errno
import json
import os
import secrets
from typing import TYPE_CHECKING

from fsjail._errors import ConfigError
from fsjail._policy import Policy, Rule, Rules
from fsjail.cli import _say
from fsjail.cli._open import folder_at, settings_at

if TYPE_CHECKING:
    from collections.abc import Sequence

FILE = "fsjail.toml"

_TEXT = """\
# What AI agents may do in this folder.
# Patterns are written as in .gitignore and start at this folder. What a list denies stays
# denied, whatever another list allows. `fsjail tree` shows the result, `fsjail doctor` proves it.

[read]
# Everything in this folder may be read but what stands here, and but secrets
# such as .env, *.pem, *.key and .ssh/, which are hidden from the start.
# deny = ["private/", "*.sqlite"]

[write]
# Nothing may be written but what stands here.
allow = {allow}
# deny = ["*.lock"]

# Files that decide what runs later (.git/, .github/workflows/, .envrc, .vscode/, ...) cannot be
# written. To drop one of these groups, write above the first [table]:
# drop_presets = ["toolchain"]          # or "vcs", "secrets"

[limits]
# max_read_bytes = "100 MiB"            # of one file
# max_write_bytes = "50 MiB"
# max_seconds = 30                      # for one search

[trash]
# Deleted and overwritten files are kept in .fsjail/ until they are purged.
# keep_days = 30
# keep_bytes = "5 GiB"

# `fsjail doctor` proves these cases each time it runs; add your own.
[[expect]]
op = "read"
path = ".env"
allowed = false
"""


def init(root: str | None, preset: str | None, write: Sequence[str], *, force: bool, as_json: bool) -> int:
    """Write ``fsjail.toml`` into a folder.

    Args:
        root: the folder; the current one if left out.
        preset: "read-only" or "workspace".
        write: patterns that may be written.
        force: whether to replace a file that is there.
        as_json: whether to print a JSON document.

    Returns:
        0.

    Raises:
        ConfigError: there is a configuration already, or a pattern cannot work.
    """
    folder = os.path.abspath(folder_at(root))
    allow = _allowed(preset, write)
    before = None if force else _before(folder)
    path = os.path.join(folder, FILE)
    listed = "[]" if not allow else "[" + ", ".join(_toml(pattern) for pattern in allow) + "]"
    _put(path, _TEXT.format(allow=listed), replace=force)
    if as_json:
        _say.emit({"file": path, "root": folder, "write": allow})
        return 0
    _say.say(f"Wrote {_say.safe(path)}.")
    if before is not None:
        _say.say(f"Note: {_say.safe(before)} holds rules too; from here down the new file holds instead.")
    _say.say("An agent may now")
    _say.say("  read   everything in this folder but secrets (.env, *.pem, *.key, .ssh/, ...)")
    what = {"*": "everything in this folder but .git/, CI workflows, editor settings, ..."}
    patterns = [_say.safe(what.get(pattern, pattern)) for pattern in allow]
    _say.say(f"  write  {', '.join(patterns) or 'nothing; name patterns with --write, or in the file'}")
    _say.say("`fsjail tree` shows it file by file; `fsjail check write PATH` asks about one.")
    return 0


def _allowed(preset: str | None, write: Sequence[str]) -> list[str]:
    if preset == "workspace":
        if write:
            raise ConfigError(
                "the preset 'workspace' has everything written already; leave one of them out", "--write"
            )
        return ["*"]
    for pattern in write:
        if not pattern.isprintable():
            # Also what is not UTF-8: the file could not hold it.
            raise ConfigError(f"{_say.safe(pattern)!r} holds a character that cannot be printed", "--write")
    if write:
        Policy(write=Rules(allow=[Rule(pattern, "--write", None) for pattern in write]))
    return list(write)


def _before(folder: str) -> str | None:
    """Say which folder above has a configuration; refuse where this one has it."""
    if os.path.lexists(os.path.join(folder, FILE)):
        raise ConfigError("is there already; --force replaces it", FILE)
    settings = settings_at(folder)
    own = [name for name in settings.sources if name in (FILE, "pyproject.toml")]
    if not own:
        return None
    if os.path.samefile(settings.root, folder):
        raise ConfigError("holds [tool.fsjail] already; --force lets fsjail.toml take its place", own[0])
    return os.path.join(settings.root, own[0])


def _toml(text: str) -> str:
    """Write a printable text as a TOML string."""
    return json.dumps(text, ensure_ascii=False)


def _put(path: str, text: str, *, replace: bool) -> None:
    """Create the file, whole or not at all; a link planted under its name is never followed."""
    name = f"{path}.{secrets.token_hex(8)}" if replace else path
    try:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise ConfigError("is there already; --force replaces it", FILE) from None
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
        if replace:
            os.replace(name, path)
    except OSError as error:
        os.unlink(name)
        raise OSError(error.errno or errno.EIO, error.strerror, FILE) from None
