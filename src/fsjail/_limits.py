"""The limits of a jail: what one call, and one jail over its life, may take."""

from __future__ import annotations

from dataclasses import dataclass, fields

from fsjail._errors import ConfigError

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call, and one jail object over its life, may take; ``None`` means no limit.

    Args:
        max_read_bytes: most bytes that one read may return.
        max_write_bytes: most bytes that one file may have after a write.
        max_total_bytes: most bytes that one jail object may write over its life.
        max_results: most entries that one listing, glob or grep may give.
        max_seconds: longest time, in seconds, for one walk, glob or grep.

    Raises:
        ConfigError: a limit is not a positive number.
    """

    max_read_bytes: int | None = 100 * _MIB
    max_write_bytes: int | None = None
    max_total_bytes: int | None = None
    max_results: int | None = 100_000
    max_seconds: float | None = 30.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            kinds = (int, float) if field.name == "max_seconds" else (int,)
            # bool is an int; NaN compares false with everything, so ask for what is wanted.
            if isinstance(value, bool) or not isinstance(value, kinds) or not value > 0:
                wanted = "a positive number" if float in kinds else "a positive whole number"
                raise ConfigError(f"{field.name} must be {wanted}, not {value!r}", file="limits")

    def tightened(self, other: Limits) -> Limits:
        """Give the smaller of each limit: the other one can lower, never raise.

        Args:
            other: limits of a file that may only tighten.

        Returns:
            Limits under which both hold.
        """
        smaller = {}
        for field in fields(self):
            given = [
                value
                for value in (getattr(self, field.name), getattr(other, field.name))
                if value is not None
            ]
            smaller[field.name] = min(given, default=None)
        return Limits(**smaller)
