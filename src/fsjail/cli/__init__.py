"""The ``fsjail`` command: what the owner of a jail types.

The modules: `_app` declares the commands (the only import of typer), `_ask` answers `check` and
`log`, `_look` shows `inspect` and `tree` from what `_survey` finds, `_keep` holds `trash` and
`undo`, `_init` writes a first configuration, `_doctor` and `_probes` prove what works here,
`_say` prints.

Exit codes: 0 allowed or done, 1 denied or not found, 2 wrong use or configuration, 130
interrupted, 141 the reader of the output went away.
"""

# ruff: noqa: PLC0415 - what only one command needs is imported when that command runs

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

# 128 + SIGPIPE: what a shell reports for a command whose reader closed the pipe.
READER_GONE = 141
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the entry point of the ``fsjail`` script.

    Args:
        argv: the arguments without the program's name; those of the process if left out.

    Returns:
        The exit code; nothing is ever raised for what a user or the disk did wrong.
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal or pipe that cannot show a character gets its escape, never a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        from fsjail.cli._app import run

        code = run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except BrokenPipeError:
        from fsjail.cli import _say

        _say.let_go()
        return READER_GONE
    except KeyboardInterrupt:
        return INTERRUPTED
    return code
