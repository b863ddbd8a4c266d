"""``fsjail watch``: changes that did not come through a jail, one a line, until it is ended."""

# ruff: noqa: PLC0415 - what only one command needs is imported when that command runs

from __future__ import annotations

import json
import queue
import signal
import sys
from typing import TYPE_CHECKING

from fsjail.cli import _say
from fsjail.cli._ask import place
from fsjail.cli._log import event_document, local
from fsjail.cli._open import jail_at

if TYPE_CHECKING:
    from fsjail._record import Event

_IDLE_SECONDS = 0.5


def watch(root: str | None, *, unexplained: bool, polling: bool, as_json: bool) -> int:
    """Print what a watch finds until SIGINT or SIGTERM; what is no finding goes to standard error.

    Args:
        root: what ``--root`` said.
        unexplained: False leaves out what is against no rule.
        polling: whether to do without the kernel's notices.
        as_json: one JSON object a line, with the fields of the log.

    Returns:
        0, when interrupted or terminated.

    Raises:
        OSError: the root cannot be watched.
        BrokenPipeError: the reader of the output went away.
    """
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with jail_at(root) as jail:
            try:
                every = None if unexplained else False
                with jail.watch(events.put, unexplained=every, polling=polling or None) as running:
                    how = "by looking again and again" if running.polling else "by notices"
                    _say.complain(f"watching {jail.root} {how}; Ctrl-C ends")
                    _print_on(events, as_json=as_json)
            except KeyboardInterrupt:
                while not events.empty():  # what was found until now
                    _print(events.get(), as_json=as_json)
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def _print_on(events: queue.SimpleQueue[Event], *, as_json: bool) -> None:
    """Print what comes, without end; and notice that nobody reads it any more."""
    import select

    output = select.poll()
    try:
        output.register(sys.stdout.fileno(), 0)  # errors are told always
    except (OSError, ValueError):  # no real file, as in a test
        output = select.poll()
    while True:
        try:
            _print(events.get(timeout=_IDLE_SECONDS), as_json=as_json)
        except queue.Empty:
            if output.poll(0):
                raise BrokenPipeError from None


def _print(event: Event, *, as_json: bool) -> None:
    if as_json:
        _say.say(json.dumps(event_document(event)))
    else:
        colour = "red" if event.decision == "deny" else "yellow"
        _say.say(_say.painter()(colour, _say.safe(line_of(event))))
    sys.stdout.flush()


def line_of(event: Event) -> str:
    """Write an event as one line for a person."""
    facts = dict(event.extra or {})
    path = event.path if event.to is None else f"{event.path} -> {event.to}"
    parts = []
    if event.rule:
        parts.append(f"{event.why}: {place(event.rule)}")
    if "links" in facts:
        parts.append(f"{facts['inside']} of its {facts['links']} names are in the root")
    if facts.get("passing"):
        parts.append("gone again")
    if facts.get("reason"):
        parts.append(str(facts["reason"]))
    if facts.get("more"):
        parts.append(f"and {facts['more']:,} more")
    behind = f" ({'; '.join(parts)})" if parts else ""
    return f"{local(event.time)}  {facts.get('kind', event.why)}: {event.op} {path}{behind}"
