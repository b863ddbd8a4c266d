"""Where fsjail keeps what does not belong into the root: user and site configuration, state.

The only module that imports platformdirs, and only inside the functions, so that
``import fsjail`` does not pay for it. On Linux the XDG variables are honoured.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_APP = "fsjail"
_FILE = "fsjail.toml"
_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
_READABLE = 40


def user_config() -> Path:
    """Tell where the user's own configuration file would be; it need not exist.

    Returns:
        The path of the file, absolute.
    """
    from pathlib import Path  # noqa: PLC0415 - as platformdirs, which needs it too

    from platformdirs import PlatformDirs  # noqa: PLC0415 - imported when needed: start-up time

    return _absolute(Path(PlatformDirs(_APP, appauthor=False).user_config_dir), ".config") / _FILE


def site_configs() -> list[Path]:
    """Tell where configuration files of the whole machine would be; they need not exist.

    Returns:
        Absolute paths, the most important first.
    """
    from pathlib import Path  # noqa: PLC0415 - as platformdirs, which needs it too

    from platformdirs import PlatformDirs  # noqa: PLC0415 - imported when needed: start-up time

    folders = PlatformDirs(_APP, appauthor=False, multipath=True).site_config_dir.split(os.pathsep)
    # A relative entry would be looked up in the current folder, which an agent may be able to write.
    return [Path(folder) / _FILE for folder in folders if os.path.isabs(folder)]


def state_folder(root: str) -> Path:
    """Tell which folder holds the log of one root; it need not exist.

    The same root gives the same folder, by whichever name it is reached.

    Args:
        root: the path of the root, absolute or relative to the current folder.

    Returns:
        ``<user state>/fsjail/<readable name>-<16 hex digits>``, absolute.
    """
    from pathlib import Path  # noqa: PLC0415 - as platformdirs, which needs it too

    from platformdirs import PlatformDirs  # noqa: PLC0415 - imported when needed: start-up time

    real = os.path.realpath(root)
    readable = "".join(c if c in _SAFE else "_" for c in os.path.basename(real))
    readable = readable.lstrip(".-")[:_READABLE] or "root"
    digest = hashlib.sha256(os.fsencode(real)).hexdigest()[:16]
    state = _absolute(Path(PlatformDirs(_APP, appauthor=False).user_state_dir), ".local/state")
    return state / f"{readable}-{digest}"


def _absolute(folder: Path, default: str) -> Path:
    """Replace a relative folder (from a relative XDG variable, which the XDG rules say to ignore)."""
    return folder if folder.is_absolute() else folder.home() / default / _APP
