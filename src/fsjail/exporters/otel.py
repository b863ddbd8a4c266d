"""Events as OpenTelemetry log records, sent by OTLP over HTTP.

Attributes carry the names of the semantic conventions where there is one; the others begin with ``fsjail.``.
The standard environment variables decide: ``OTEL_EXPORTER_OTLP_ENDPOINT``, ``…_HEADERS``, ``…_TIMEOUT`` and
their ``…_LOGS_…`` forms where it goes, ``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES`` who it is from,
``OTEL_BLRP_*`` how much waits and how long, ``OTEL_SDK_DISABLED`` whether at all.
"""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING, Any, Final

from fsjail import __version__
from fsjail.exporters._words import code, microseconds, plain, sentence

try:
    from opentelemetry._logs import LogRecord, SeverityNumber
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import (
        BatchLogRecordProcessor,
        LogRecordExporter,
        LogRecordExportResult,
    )
    from opentelemetry.sdk.resources import Resource
except ImportError as error:
    raise ImportError("OpenTelemetry is not installed, or too old: pip install 'fsjail[otel]'") from error

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fsjail._record import Event

EVENT_NAME: Final = "fsjail.audit"
_SEVERITY: Final = {
    "allow": (SeverityNumber.INFO, "INFO"),
    "deny": (SeverityNumber.WARN, "WARN"),
    "error": (SeverityNumber.ERROR, "ERROR"),
}
_CLOSE_SECONDS = 5.0
_BATCH = 512


class OTelExporter:
    """Sends every event to an OpenTelemetry collector, in the background.

    An operation only puts its event into a bounded queue: a collector that is slow, absent or out of reach
    costs events (the oldest that wait), never an operation. Events carry the trace that is active, if one is.

    Does not stop: what still waits when the process is killed is not sent; it is in the log. To lose nothing,
    let ``fsjail log --follow --export otel`` send instead: it reads the log and asks again.

    Attributes:
        sent: how many events a collector has taken.
        failed: how many it has not.
    """

    def __init__(
        self,
        *,
        root: str | None = None,
        exporter: LogRecordExporter | None = None,
        provider: LoggerProvider | None = None,
    ) -> None:
        """Get ready; nothing is sent before the first event.

        Args:
            root: the jail's root, for the attribute ``fsjail.root``.
            exporter: where to send instead of OTLP over HTTP.
            provider: send through this one, which the program has set up and will shut down itself.

        Raises:
            ValueError: ``OTEL_EXPORTER_OTLP_PROTOCOL`` asks for another protocol than HTTP with protobuf.
        """
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL") or os.environ.get(
            "OTEL_EXPORTER_OTLP_PROTOCOL"
        )
        if exporter is None and provider is None and protocol not in {None, "", "http/protobuf"}:
            raise ValueError(f"OTLP goes by http/protobuf here, not by {protocol!r}")
        self._own = provider is None
        self._root = root
        self._given = exporter
        self._provider = provider
        self._counting: _Counting | None = None
        self._pid = os.getpid()
        self._closed = False
        self._lock = threading.Lock()

    @property
    def sent(self) -> int:
        """How many events a collector has taken."""
        return 0 if self._counting is None else self._counting.sent

    @property
    def failed(self) -> int:
        """How many events no collector has taken."""
        return 0 if self._counting is None else self._counting.failed

    def __call__(self, event: Event) -> None:
        """Put an event into the queue."""
        if self._closed:
            return
        if self._own:
            if self._pid != os.getpid():
                self._forked()
            if self._provider is None:
                self._open()
        if self._provider is not None:
            self._provider.get_logger("fsjail", __version__).emit(_record(event, self._root))

    def send(self, events: Iterable[Event]) -> bool:
        """Send events and wait for the answer; for a batch at most ``OTEL_EXPORTER_OTLP_TIMEOUT`` (10 s).

        Args:
            events: what to send; not more at once than ``OTEL_BLRP_MAX_QUEUE_SIZE`` (2048).

        Returns:
            Whether a collector has taken all.
        """
        before = self.failed
        for event in events:
            self(event)
        if self._provider is not None:
            self._provider.force_flush()
        return self.failed == before

    def close(self, seconds: float = _CLOSE_SECONDS) -> None:
        """Send what waits and stop; a second call does nothing.

        Args:
            seconds: how long to wait for the collector at most.
        """
        self._closed = True
        if self._own and self._provider is not None and self._pid == os.getpid():
            self._ending.set()
            self._ended.wait(seconds)
        self._provider = None

    def _open(self) -> None:
        """Make the threads and connections of this process."""
        with self._lock:
            if self._provider is not None:
                return
            exporter = OTLPLogExporter() if self._given is None else self._given
            self._counting = _Counting(exporter)
            provider = LoggerProvider(_resource(), shutdown_on_exit=False)
            provider.add_log_record_processor(BatchLogRecordProcessor(self._counting))
            # Waiting for a collector cannot be cut short, only left alone; and where the interpreter ends no
            # new thread can be started. So the one that will wait is there from the beginning.
            self._ending, self._ended = threading.Event(), threading.Event()
            threading.Thread(
                target=_end, args=(provider, self._ending, self._ended), name="fsjail-otel-close", daemon=True
            ).start()
            self._provider = provider

    def _forked(self) -> None:
        """Leave the parent's behind: its threads are not here, and its connection must not be shared."""
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._provider = self._counting = None


def _end(provider: LoggerProvider, ending: threading.Event, ended: threading.Event) -> None:
    ending.wait()
    provider.shutdown()
    ended.set()


class _Counting(LogRecordExporter):
    """Passes batches on and counts what became of them, which the batch processor does not tell."""

    def __init__(self, inner: LogRecordExporter) -> None:
        self._inner = inner
        self.sent = self.failed = 0

    def export(self, batch: Sequence[Any]) -> LogRecordExportResult:
        result = LogRecordExportResult.FAILURE
        try:
            result = self._inner.export(batch)
        finally:
            if result is LogRecordExportResult.SUCCESS:
                self.sent += len(batch)
            else:
                self.failed += len(batch)
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return bool(self._inner.force_flush(timeout_millis))


def _resource() -> Resource:
    """Name the service and the machine, unless the environment does."""
    given = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    own = {}
    if not os.environ.get("OTEL_SERVICE_NAME") and "service.name=" not in given:
        own["service.name"] = "fsjail"
    if "host.name=" not in given:
        own["host.name"] = os.uname().nodename
    return Resource.create(own)


def _record(event: Event, root: str | None) -> LogRecord:
    number, text = _SEVERITY.get(event.decision, _SEVERITY["error"])
    moment = microseconds(event)
    return LogRecord(
        timestamp=None if moment is None else moment * 1000,
        severity_number=number,
        severity_text=text,
        body=sentence(event),
        event_name=EVENT_NAME,
        attributes=attributes(event, root),
    )


def attributes(event: Event, root: str | None = None) -> dict[str, Any]:
    """Give the attributes of an event's log record.

    Args:
        event: an event of the log.
        root: the jail's root.
    """
    who = event.actor
    rule = event.rule or {}
    refused = event.decision != "allow"
    found: dict[str, Any] = {
        "log.record.uid": f"{event.run}-{event.seq}",
        "file.path": event.path,
        "process.pid": who.get("pid"),
        "process.executable.path": who.get("exe"),
        "process.command_args": who.get("argv") or None,
        "gen_ai.agent.name": who.get("name"),
        "gen_ai.tool.name": who.get("tool"),
        "gen_ai.tool.call.id": who.get("call_id"),
        "error.type": (code(event) or "_OTHER") if refused else None,
        "security_rule.name": rule.get("pattern"),
        "security_rule.ruleset.name": rule.get("source"),
        "fsjail.rule.line": rule.get("line"),
        "fsjail.root": root,
        "fsjail.extra": None if event.extra is None else json.dumps(event.extra),
    }
    for field in ("v", "seq", "run", "layer", "op", "to", "resolved", "decision", "why", "trash_id", "count"):
        found[f"fsjail.{field}"] = getattr(event, field)
    found["fsjail.hash"] = event.hash
    return {key: _valid(value) for key, value in found.items() if value is not None}


def _valid(value: Any) -> Any:
    """Make texts valid Unicode: protobuf refuses another, and the whole attribute with it."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, list):
        return [plain(str(item)) for item in value]
    return value
