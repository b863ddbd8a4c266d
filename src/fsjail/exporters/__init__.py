"""Hands the events of an audit log to what its owner already runs.

``logging``
    `LoggingExporter`: every event as a record of the standard library's ``logging``, so that any handler (a
    file, syslog, a JSON formatter) takes it.
``otel``
    `OTelExporter`: every event as an OpenTelemetry log record. Needs ``pip install 'fsjail[otel]'``; the
    standard ``OTEL_EXPORTER_OTLP_*`` variables say where it goes.
OCSF
    `ocsf_event`: an event as File System Activity of the Open Cybersecurity Schema Framework.

In a program::

    exporter = LoggingExporter()
    jail.audit.subscribe(exporter, closing=exporter.close)

In a configuration: ``[audit] export = ["logging", "otel"]``. Beside a program:
``fsjail log --follow --export otel``.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any, Protocol

from fsjail._errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsjail._record import Event
    from fsjail.exporters.ocsf import ocsf_event
    from fsjail.exporters.otel import OTelExporter
    from fsjail.exporters.records import LoggingExporter

__all__ = ["Exporter", "LoggingExporter", "OTelExporter", "named", "ocsf_event"]

_PLACES = {"LoggingExporter": "records", "OTelExporter": "otel", "ocsf_event": "ocsf"}
_CLASSES = {"logging": "LoggingExporter", "otel": "OTelExporter"}
_NEEDS = {"otel": ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")}


class Exporter(Protocol):
    """What takes events: a callable for `AuditLog.subscribe`, with an end."""

    def __call__(self, event: Event) -> None:
        """Take an event."""

    def close(self) -> None:
        """Send what waits, within a bounded time, and let go."""


def __getattr__(name: str) -> Any:
    """Import an exporter when it is named: each brings what it needs."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)


def named(names: Iterable[str], *, root: str | None = None) -> list[Exporter]:
    """Get the exporters of a configuration ready; each is made at the first event, not before.

    Args:
        names: ``"logging"``, ``"otel"``.
        root: the jail's root, for exporters that say of which jail an event is.

    Raises:
        ConfigError: there is no such exporter, or the extra that it needs is not installed.
    """
    found: list[Exporter] = []
    for name in dict.fromkeys(names):
        if name not in _CLASSES:
            raise ConfigError(
                f"there is no exporter {name!r}; there are {', '.join(_CLASSES)}", "audit.export"
            )
        if not all(map(_installed, _NEEDS.get(name, ()))):
            raise ConfigError(f"{name!r} needs an extra: pip install 'fsjail[{name}]'", "audit.export")
        found.append(_AtFirst(_CLASSES[name], {"root": root} if name == "otel" else {}))
    return found


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that would hold it
        return False


class _AtFirst:
    """An exporter that is made when the first event comes: OpenTelemetry takes 0.3 s to import."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        self._name, self._options = name, options
        self._real: Exporter | None = None
        self._tried = False

    def __call__(self, event: Event) -> None:
        if not self._tried:
            self._tried = True  # what cannot be made is not tried again at every event
            self._real = __getattr__(self._name)(**self._options)
        if self._real is not None:
            self._real(event)

    def close(self) -> None:
        if self._real is not None:
            self._real.close()
