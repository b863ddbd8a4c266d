"""The ``fsjail`` command: what the owner of a jail types.

The modules: `_app` declares the commands (the only import of typer), `_ask` answers `check`, `_log`
shows, follows, sends on and proves the log, `_summary` counts it, `_look` shows `inspect` and `tree` from
what `_survey` finds, `_keep` holds `trash` and `undo`, `_init` writes a first configuration, `_doctor` and
`_probes` prove what works here, `_open` finds the jail, `_say` prints.

Exit codes: 0 allowed or done, 1 denied or not found, 2 wrong use or configuration, 130
interrupted, 141 the reader of the output went away.
"""

# ruff: noqa: PLC0415 - what only one command needs is imported when that command runs

from __future__ import annotations

import atexit
import gc
import os
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

INTERRUPTED = 130
# 128 + SIGPIPE: what a shell reports for a command whose reader closed the pipe.
READER_GONE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the entry point of the ``fsjail`` script.

    Args:
        argv: the arguments without the program's name. Left out, those of the process, which
            then ends here.

    Returns:
        The exit code; nothing is ever raised for what a user or the disk did wrong.
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal or pipe that cannot show a character gets its escape, never a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        # Importing leaves no garbage; looking for it all the same took 8 ms.
        gc.disable()
        from fsjail.cli._app import run

        gc.freeze()
        gc.enable()
        code = run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except BrokenPipeError:
        from fsjail.cli._say import let_go

        let_go()
        code = READER_GONE
    except KeyboardInterrupt:
        code = INTERRUPTED
    if argv is None:
        _leave(code)
    return code


def _leave(code: int) -> NoReturn:
    """End the process without taking the interpreter apart first, which took 10 to 20 ms."""
    atexit._run_exitfuncs()  # noqa: SLF001 - the log and a coverage run have work to do there
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            continue  # its reader went away; there is nobody to tell
    os._exit(code)
