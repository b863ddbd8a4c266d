"""Events as records of the standard library's ``logging``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from fsjail._record import FIELDS
from fsjail.exporters._words import microseconds, plain, sentence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fsjail._record import Event

_LEVELS: Final = {"allow": logging.INFO, "deny": logging.WARNING, "error": logging.ERROR}


class LoggingExporter:
    """Gives every event to a logger; the handlers, filters and levels of ``logging`` do the rest.

    The message is one safe line, the time that of the event. The fields of the event stand in the record as
    ``fsjail_op``, ``fsjail_path`` and so on (``fsjail_actor``, ``fsjail_rule`` and ``fsjail_extra`` are
    dictionaries): a JSON formatter writes them, a format string can name them.

    Does not stop: a handler that takes long holds up the operation; put a ``QueueHandler`` before it.
    """

    def __init__(
        self,
        logger: str | logging.Logger = "fsjail.audit",
        *,
        levels: Mapping[str, int] | None = None,
    ) -> None:
        """Choose the logger.

        Args:
            logger: the logger, or its name.
            levels: the level of each decision (``allow``, ``deny``, ``error``), where it is not to be
                INFO, WARNING and ERROR.
        """
        self._logger = logging.getLogger(logger) if isinstance(logger, str) else logger
        self._levels = {**_LEVELS, **(levels or {})}

    def __call__(self, event: Event) -> None:
        """Log an event."""
        level = self._levels.get(event.decision, logging.ERROR)
        if not self._logger.isEnabledFor(level):
            return
        extra = {f"fsjail_{field}": _valid(getattr(event, field)) for field in FIELDS}
        record = self._logger.makeRecord(
            self._logger.name, level, "(fsjail)", 0, sentence(event), (), None, "audit", extra
        )
        moment = microseconds(event)
        if moment is not None:
            record.created, record.msecs = moment / 10**6, moment // 1000 % 1000
        self._logger.handle(record)

    def close(self) -> None:
        """Do nothing: handlers belong to whoever made them."""


def _valid(value: object) -> object:
    """Make every text valid Unicode: a file handler would fail on the bytes of an odd name."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, dict):
        return {key: _valid(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_valid(item) for item in value]
    return value
