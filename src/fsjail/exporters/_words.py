"""What all exporters say alike: a safe sentence, valid text, the moment of an event."""

from __future__ import annotations

import errno
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fsjail._record import Event

_DONE = {"allow": "allowed", "deny": "denied", "error": "failed"}
_SHOWN = 200  # characters of a name in a sentence
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def plain(text: str) -> str:
    r"""Make a text valid Unicode: a byte of a name that is none becomes ``\xff``, as it is written.

    Receivers refuse lone surrogates, some with the whole batch that one stands in.
    """
    if text.isascii():
        return text
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte: the name of a refused call
        raw = text.encode("utf-8", "replace")
    return raw.decode("utf-8", "backslashreplace")


def one_line(text: str) -> str:
    """Make a text safe in a line of a log: neither a line end nor an escape sequence survives."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(map(_shown, text))


def quoted(text: str) -> str:
    """Quote a name: one line, cut to what a person reads."""
    shown = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
    return f"'{one_line(shown).replace(chr(39), chr(92) + chr(39))}'"


def _shown(char: str) -> str:
    if char.isprintable():
        return "\\\\" if char == "\\" else char
    number = ord(char)
    if 0xDC80 <= number <= 0xDCFF:  # noqa: PLR2004 - what surrogateescape makes of a stray byte
        return f"\\x{number - 0xDC00:02x}"
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")


def sentence(event: Event) -> str:
    """Write an event as one line: what an agent made up cannot begin a second one."""
    word = _DONE.get(event.decision, event.decision)
    to = "" if event.to is None else f" to {quoted(event.to)}"
    times = "" if event.count == 1 else f", {event.count} times"
    name = event.actor.get("name")
    by = "" if not name else f", by {quoted(str(name))}"
    return (
        f"{one_line(word)}: {one_line(event.op)} {quoted(event.path)}{to} ({one_line(event.why)}){times}{by}"
    )


def microseconds(event: Event) -> int | None:
    """Give the time of an event in microseconds since the epoch; None if a forged record has none."""
    try:
        moment = datetime.fromisoformat(event.time)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    return (moment - _EPOCH) // timedelta(microseconds=1)


def code(event: Event) -> str | None:
    """Give the symbol of the error number, such as ``EACCES``."""
    if not isinstance(event.errno, int):
        return None
    return errno.errorcode.get(event.errno, str(event.errno))
