"""``fsjail log``: what was tried and what became of it; shown, followed, summed up, sent on, proven."""

# ruff: noqa: PLC0415 - what only one command needs is imported when that command runs

from __future__ import annotations

import json
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from fsjail._errors import ConfigError
from fsjail.cli import _say
from fsjail.cli._ask import place
from fsjail.cli._open import jail_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fsjail._jail import Jail
    from fsjail._record import Event
    from fsjail.exporters import OTelExporter

Form = Literal["text", "json", "ocsf"]

_HEADERS = ("TIME", "WHO", "WHAT", "PATH", "OUTCOME", "WHY")
_SHOWN, _FOLLOWED, _SUMMED = 50, 10, 10  # rows, where --limit is not given
_WIDEST = 20  # columns up to which time, who and what are lined up where lines come one by one
_OUTCOMES = {"allow": "done", "deny": "denied", "error": "failed"}
_COLOURS = {"deny": "red", "error": "yellow"}
_IDLE_SECONDS = 0.2
_BATCH = 500  # events sent at once
_PATIENCE = (1, 2, 4, 8, 15, 30)  # seconds between two tries of a collector that does not answer


def event_document(event: Event) -> dict[str, Any]:
    """Write an event for ``--json``; the fields are those of the log."""
    return {field: getattr(event, field) for field in event.__dataclass_fields__}


def event_row(event: Event) -> tuple[str, ...]:
    """Write an event as a table's row."""
    path = event.path if event.to is None else f"{event.path} -> {event.to}"
    # What a watch tells was done by somebody else, whatever the rules say of it.
    outcome = "seen" if event.layer == "watch" else _OUTCOMES.get(event.decision, event.decision)
    if event.count > 1:
        outcome += f" x{event.count}"
    why = event.why if not event.rule else f"{event.why}: {place(event.rule)}"
    return (local(event.time), str(event.actor.get("name") or "-"), event.op, path, outcome, why)


def local(moment: str) -> str:
    """Write the log's UTC time as local time in whole seconds; as it is if it is no time."""
    try:
        return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError):
        return moment


def log(root: str | None, wanted: dict[str, Any], *, limit: int | None, form: Form) -> int:
    """Print the last events, oldest first.

    Args:
        root: what ``--root`` said.
        wanted: the filters, as for ``AuditLog.events``.
        limit: how many; 0 for all, which are printed as they are read.
        form: ``ocsf`` prints all unless there is a limit, one JSON object a line.

    Returns:
        0, also if there are none.
    """
    _check(wanted)
    if limit is None:
        limit = 0 if form == "ocsf" else _SHOWN
    with jail_at(root) as jail:
        last, matching = jail.audit.tail(limit, **wanted) if limit else ([], 0)
        events: Iterable[Event] = last if limit else jail.audit.events(**wanted)
        if form == "json":
            _print_document(events, matching)
        elif form == "text" and last:
            _say.table(_HEADERS, [event_row(event) for event in last])
            if matching > len(last):
                _say.say(f"{len(last):,} of {_say.number(matching, 'event')}; --limit 0 shows all.")
        else:
            write, some = _writer(form), False
            for event in events:
                write(event)
                some = True
            if form == "text" and not some:
                _say.say("No such events." if wanted else "Nothing has been logged yet.")
    return 0


def follow(root: str | None, wanted: dict[str, Any], *, limit: int | None, form: Form) -> int:
    """Print the last events, then those that any process adds, one a line, until interrupted.

    Args:
        root: what ``--root`` said.
        wanted: the filters, as for ``AuditLog.events``.
        limit: how many of those that are there already; 0 for all.
        form: ``json`` and ``ocsf`` print one JSON object a line.

    Returns:
        0, when interrupted or terminated.

    Raises:
        BrokenPipeError: the reader of the output went away.
    """
    _check(wanted)
    write, wait = _writer(form), _idle()

    def rest() -> None:
        sys.stdout.flush()
        wait()

    last = _FOLLOWED if limit is None else limit or -1
    with _until_interrupted(), jail_at(root) as jail:
        for event in jail.audit.follow(last=last, wait=rest, **wanted):
            write(event)
    return 0


def send(root: str | None, wanted: dict[str, Any], *, limit: int | None, onwards: bool) -> int:
    """Send events to an OpenTelemetry collector: a side-car for jails that know nothing of it.

    What a collector has not taken is sent again until it has, so an event may arrive twice, with the same
    ``log.record.uid``, but none is lost while the log keeps it.

    Args:
        root: what ``--root`` said.
        wanted: the filters, as for ``AuditLog.events``.
        limit: how many of those that are there already, 0 for all; left out: all, or none with ``onwards``.
        onwards: whether to go on with what is added, until interrupted.

    Returns:
        0; 1 if the collector did not take what was there already.
    """
    import logging

    from fsjail.exporters import named

    _check(wanted)
    named(["otel"])  # or complain that the extra is not installed
    from fsjail.exporters import OTelExporter

    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # what went wrong is said here, once
    with jail_at(root) as jail:
        try:
            exporter = OTelExporter(root=str(jail.root))
        except ValueError as error:
            raise ConfigError(str(error), file="OTEL_EXPORTER_OTLP_PROTOCOL") from None
        try:
            if onwards:
                _send_onwards(jail, exporter, wanted, (limit or -1) if limit is not None else 0)
                return 0
            events: Iterator[Event] = iter(jail.audit.tail(limit, **wanted)[0] if limit else ())
            return _send_once(exporter, events if limit else jail.audit.events(**wanted))
        finally:
            exporter.close()


def _send_once(exporter: OTelExporter, events: Iterator[Event]) -> int:
    from itertools import islice

    while batch := list(islice(events, _BATCH)):
        if not exporter.send(batch):
            _say.complain(f"the collector did not take all; {_say.number(exporter.sent, 'event')} sent")
            return 1
    _say.say(f"{_say.number(exporter.sent, 'event')} sent.")
    return 0


def _send_onwards(jail: Jail, exporter: OTelExporter, wanted: dict[str, Any], last: int) -> None:
    import signal

    waiting: list[Event] = []

    def push() -> bool:
        # An interrupt in between would leave open whether the events were taken.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            if exporter.send(waiting):
                waiting.clear()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return not waiting

    def empty() -> None:
        turn = 0
        while waiting and not push():
            if turn == 0:
                _say.complain(f"the collector does not answer; {_say.number(len(waiting), 'event')} wait")
            time.sleep(_PATIENCE[min(turn, len(_PATIENCE) - 1)])
            turn += 1
        if turn:
            _say.complain("the collector answers again")

    def rest() -> None:
        empty()
        time.sleep(_IDLE_SECONDS)  # nothing is printed, so nobody's going away matters

    with _until_interrupted():
        _say.complain("sending what is logged; interrupt to end")
        for event in jail.audit.follow(last=last, wait=rest, **wanted):
            waiting.append(event)
            if len(waiting) >= _BATCH:
                empty()
    if waiting:
        _say.complain(f"{_say.number(len(waiting), 'event')} not sent")
    _say.complain(f"{_say.number(exporter.sent, 'event')} sent")


def summary(root: str | None, wanted: dict[str, Any], *, limit: int | None, as_json: bool) -> int:
    """Count refusals by rule, path, actor and time; or what ``--decision`` names instead.

    Returns:
        0.
    """
    from fsjail.cli._summary import Summary

    _check(wanted)
    kind = wanted.pop("decision", "deny")
    if wanted.pop("denied", None):
        kind = "deny"
    counted = Summary((kind,))
    with jail_at(root) as jail, _say.counting("events counted") as step:
        for event in jail.audit.events(**wanted):
            counted.add(event)
            step()
    rows = _SUMMED if limit is None else limit
    if as_json:
        _say.emit(counted.document(rows))
    else:
        counted.draw(rows)
    return 0


def verify(root: str | None, *, as_json: bool) -> int:
    """Prove the chain of the log.

    Returns:
        0 if it is whole, 1 if something was changed, cut out or cut off.
    """
    with jail_at(root) as jail:
        proof = jail.audit.verify()
    if as_json:
        _say.emit({"ok": proof.ok, "records": proof.records, "problems": list(proof.problems)})
        return 0 if proof.ok else 1
    records = _say.number(proof.records, "record")
    _say.say(f"The log is whole: {records}." if proof.ok else f"The log is damaged; {records} read.")
    for problem in proof.problems:
        _say.say(f"  {_say.safe(problem)}")
    return 0 if proof.ok else 1


def _check(wanted: dict[str, Any]) -> None:
    """Complain of a pattern that can never match before anything is opened."""
    from fsjail._query import Query

    try:
        Query(**wanted)
    except ValueError as error:
        raise ConfigError(str(error), file="--path") from None


def _print_document(events: Iterable[Event], matching: int) -> None:
    """Write one JSON document, an event a line, without holding it in memory."""
    lead, count = "", 0
    sys.stdout.write('{"events": [')
    for event in events:
        sys.stdout.write(f"{lead}\n{json.dumps(event_document(event))}")
        lead = ","
        count += 1
    sys.stdout.write(f'\n],\n"matching": {matching or count}}}\n')


def _writer(form: Form) -> Callable[[Event], None]:
    """Give the function that prints an event as one line."""
    if form == "json":
        return lambda event: _say.say(json.dumps(event_document(event)))
    if form == "ocsf":
        from fsjail.exporters import ocsf_event

        return lambda event: _say.say(json.dumps(ocsf_event(event)))
    paint = _say.painter()
    widths = [0, 0, 0]

    def write(event: Event) -> None:
        cells = [_say.safe(cell) for cell in event_row(event)]
        for index, cell in enumerate(cells[:3]):
            widths[index] = max(widths[index], min(len(cell), _WIDEST))
        first = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=False))
        colour = _COLOURS.get(event.decision)
        outcome = cells[4].ljust(6)
        _say.say(f"{first}  {paint(colour, outcome) if colour else outcome}  {cells[3]}  {cells[5]}".rstrip())

    return write


def _idle() -> Callable[[], None]:
    """Give the function that waits a little, and notices at once when nobody reads the output any more."""
    import select

    try:
        watched = select.poll()
        watched.register(sys.stdout.fileno(), 0)  # only what is told unasked: an error, a hang-up
    except (AttributeError, OSError, ValueError):  # no such call here, or an output that is no file
        return lambda: time.sleep(_IDLE_SECONDS)

    def wait() -> None:
        if watched.poll(_IDLE_SECONDS * 1000):
            raise BrokenPipeError

    return wait


class _until_interrupted:  # noqa: N801 - used like a function, as contextlib's are
    """A block that Ctrl-C or SIGTERM ends, without an error."""

    def __enter__(self) -> None:
        import signal

        try:
            self._before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        except ValueError:  # not the main thread
            self._before = None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        import signal

        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
        return kind is not None and issubclass(kind, KeyboardInterrupt)
