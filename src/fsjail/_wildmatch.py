"""One component of a path against one segment of a pattern, byte for byte as git's wildmatch.

Regular expressions are the engine. Every ``*`` in them is inside an atomic group or possessive: a
pattern such as ``*a*a*a*a*b`` would otherwise keep a backtracking engine busy for seconds on one
hostile name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# One segment is a row of tokens: a literal run, one byte out of a set, or None for "*".
Token: TypeAlias = "bytes | frozenset[int] | None"  # noqa: S105 (no password)

_SLASH, _BACKSLASH, _STAR, _QUESTION, _OPEN, _CLOSE, _DASH, _COLON = b"/\\*?[]-:"
_NOT_SLASH: Final = frozenset(range(1, 256)) - {_SLASH}
_UPPER: Final = frozenset(range(ord("A"), ord("Z") + 1))
_LOWER: Final = frozenset(range(ord("a"), ord("z") + 1))
_DIGIT: Final = frozenset(range(ord("0"), ord("9") + 1))
_PRINT: Final = frozenset(range(0x20, 0x7F))
_NOT_ASCII: Final = frozenset(range(0x80, 0x100))

_PLAIN: Final = re.compile(rb"[^*?\[\\/]+")

# git's own tables (ctype.c): only ASCII, and neither VT nor FF is a space.
_POSIX: Final[dict[bytes, frozenset[int]]] = {
    b"alnum": _UPPER | _LOWER | _DIGIT,
    b"alpha": _UPPER | _LOWER,
    b"blank": frozenset(b" \t"),
    b"cntrl": frozenset(range(1, 0x20)) | {0x7F},
    b"digit": _DIGIT,
    b"graph": _PRINT - {0x20},
    b"lower": _LOWER,
    b"print": _PRINT,
    b"punct": _PRINT - {0x20} - _UPPER - _LOWER - _DIGIT,
    b"space": frozenset(b" \t\n\r"),
    b"upper": _UPPER,
    b"xdigit": _DIGIT | frozenset(b"abcdefABCDEF"),
}


def encode(name: str) -> bytes:
    """Give the bytes of a name, as the file system sees them."""
    return name.encode("utf-8", "surrogateescape")


def decode(name: bytes) -> str:
    """Give the one spelling of these bytes as text."""
    return name.decode("utf-8", "surrogateescape")


def fold(name: str) -> str:
    """Give the form in which names are equal that differ only in case or in composed accents."""
    if name.isascii():
        return name.lower()
    from unicodedata import normalize  # noqa: PLC0415 (1 MB, needed for few names)

    return normalize("NFC", normalize("NFC", name).casefold())


@dataclass(frozen=True, slots=True)
class Segment:
    """What one component of a path must look like."""

    tokens: tuple[Token, ...]

    @property
    def literal(self) -> bytes | None:
        """The only bytes that match, if there is but one spelling."""
        if len(self.tokens) == 1 and isinstance(self.tokens[0], bytes):
            return self.tokens[0]
        return None

    def source(self) -> bytes:
        """Write the segment as a regular expression that matches a whole component."""
        chunks: list[list[bytes | frozenset[int]]] = [[]]
        for token in self.tokens:
            if token is None:
                chunks.append([])
            else:
                chunks[-1].append(token)
        first, *others = chunks
        out = [_chunk(first)]
        # Between two stars the leftmost place is as good as any: never come back to try another.
        out.extend(b"(?>[^/]*?" + _chunk(chunk) + b")" for chunk in others[:-1])
        if others:
            last = others[-1]
            width = sum(len(token) if isinstance(token, bytes) else 1 for token in last)
            # The end is looked at once, from behind, and must not overlap what came before.
            out.append(b"(?=[^/]{%d})[^/]*+(?<=%b)" % (width, _chunk(last)) if last else b"[^/]*+")
        return b"".join(out)

    def folded(self) -> Segment:
        """Give the segment that matches the folded form of every name this one matches."""
        return Segment(tuple(_fold_token(token) for token in self.tokens))


ANY: Final = Segment((None,))


def _chunk(tokens: Iterable[bytes | frozenset[int]]) -> bytes:
    return b"".join(re.escape(t) if isinstance(t, bytes) else _set_source(t) for t in tokens)


def _set_source(members: frozenset[int]) -> bytes:
    if members == _NOT_SLASH:
        return b"[^/]"
    return b"[" + b"".join(b"\\x%02x" % byte for byte in sorted(members)) + b"]"


def _fold_token(token: Token) -> Token:
    if token is None:
        return None
    if isinstance(token, bytes):
        return encode(fold(decode(token)))
    members = {byte | 0x20 if byte in _UPPER else byte for byte in token}
    # One byte of a longer character: folding may turn it into any other.
    return frozenset(members) | (_NOT_ASCII if members & _NOT_ASCII else frozenset())


def tokens(body: bytes) -> Iterator[tuple[Token, int]]:
    """Read the tokens of a pattern, each with the number of bytes it took."""
    at = 0
    while at < len(body):
        byte = body[at]
        end = at + 1
        token: Token = body[at:end]
        if byte == _BACKSLASH:
            end += 1
            token = body[at + 1 : end]
            if not token:
                raise ValueError("it ends with a backslash that protects nothing")
        elif byte == _STAR:
            while body[end : end + 1] == b"*":
                end += 1
            token = None
        elif byte == _QUESTION:
            token = _NOT_SLASH
        elif byte == _OPEN:
            token, end = _class(body, end)
        elif run := _PLAIN.match(body, at):
            end = run.end()
            token = run[0]
        yield token, end - at
        at = end


def _class(body: bytes, at: int) -> tuple[frozenset[int], int]:
    """Read a class such as ``[a-z]``, starting behind its bracket; give its bytes and its end."""
    negated = body[at : at + 1] in {b"!", b"^"}
    if negated:
        at += 1
    members: set[int] = set()
    previous = 0  # what a "-" can start a range from
    first = True
    while True:
        byte, after = _member(body, at)
        if body[at] == _CLOSE and not first:
            break
        first = False
        if body[at] == _OPEN and body[after : after + 1] == b":":
            end = body.find(b"]", after + 1)
            if end < 0:
                byte, after = _member(body, len(body))
            elif end > after + 1 and body[end - 1] == _COLON:
                members |= _posix(body[after + 1 : end - 1])
                previous, at = 0, end + 1
                continue
        elif body[at] == _DASH and previous and body[after : after + 1] not in {b"", b"]"}:
            byte, after = _member(body, after)
            members.update(range(previous, byte + 1))
            previous, at = 0, after
            continue
        members.add(byte)
        previous, at = byte, after
    found = (_NOT_SLASH - members) if negated else (_NOT_SLASH & members)
    if not found:
        raise ValueError(f"the class {decode(body[:after])!r} matches no byte")
    return frozenset(found), after


def _member(body: bytes, at: int) -> tuple[int, int]:
    """Read one byte inside a class, perhaps protected by a backslash."""
    if body[at : at + 1] == b"\\":
        at += 1
    if at >= len(body):
        raise ValueError("a [ is not closed; write \\[ for the character")
    return body[at], at + 1


def _posix(name: bytes) -> frozenset[int]:
    try:
        return _POSIX[name]
    except KeyError:
        raise ValueError(
            f"there is no class [:{decode(name)}:]; known are {', '.join(map(decode, _POSIX))}"
        ) from None
