"""Opens the jail that a command is about."""

# ruff: noqa: PLC0415 - what only one command needs is imported when that command runs

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from fsjail._errors import ConfigError

if TYPE_CHECKING:
    from fsjail._jail import Jail
    from fsjail.config import Settings

ACTOR = "cli"
_AGO = re.compile(r"(\d+)\s*(s|m|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)


def jail_at(root: str | None) -> Jail:
    """Open the jail at a folder, or the one found from the current folder.

    Args:
        root: what ``--root`` said.

    Raises:
        ConfigError: no such folder, or a configuration that cannot work.
    """
    from fsjail._jail import Jail

    # Not the actor of the configuration: what the owner restores must not count as the agent's.
    return Jail.load(folder_at(root), actor=ACTOR)


def settings_at(root: str | None) -> Settings:
    """Read the configuration that :func:`jail_at` would use."""
    from fsjail import config

    return config.load(folder_at(root))


def folder_at(root: str | None) -> str:
    """Give the folder that ``--root`` names, or the current one.

    Raises:
        ConfigError: there is no such folder.
    """
    if root is not None and not os.path.isdir(root):
        # A missing root is wrong use (2), not something "not found" in the jail (1).
        raise ConfigError("there is no such folder", file=root)
    return root or "."


def moment(text: str | None, *, now: datetime | None = None, option: str = "--since") -> datetime | None:
    """Read a time as people type it.

    Args:
        text: ``90s``, ``30m``, ``2h``, ``3d``, ``1w`` ago, or an ISO date, time or both; local
            time where no zone is given. None stays None.
        now: the present, for tests.
        option: what the complaint names.

    Raises:
        ConfigError: neither of these.
    """
    if text is None:
        return None
    ago = _AGO.fullmatch(text.strip())
    try:
        if ago is not None:
            return (now or datetime.now(UTC)) - timedelta(seconds=int(ago[1]) * _SECONDS[ago[2]])
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{text!r} is no time; write 30m, 2h, 3d or an ISO date such as 2025-03-01T14:00", file=option
        ) from None


def byte_count(text: str | None) -> int | None:
    """Read a size as people type it: ``500``, ``10MB``, ``1.5 GiB``.

    Args:
        text: the size; None stays None.

    Raises:
        ConfigError: not a size.
    """
    if text is None:
        return None
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"{text!r} is no size; write 500MB or 5GiB", file="--keep")
    step = 1024 if found[3] else 1000
    return int(float(found[1]) * step ** " kmgt".index(found[2].lower() or " "))
