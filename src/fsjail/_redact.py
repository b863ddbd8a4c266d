"""Takes what looks like a secret out of what is logged: a guess by name and shape; pure.

Three depths: a command line may lose any long random word; a message only what is named a secret or has the
shape of a known token; a path only the exact shape of a known token, and never a slash, so that an attempt
cannot hide where it went behind something that looks like a secret.

Does not stop: a secret that has neither a telling name nor a known shape.
"""

from __future__ import annotations

import re
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fsjail._record import NAME, PATH, WHY

if TYPE_CHECKING:
    from collections.abc import Sequence

_ARGV = 32  # how many words are kept
_GONE = "[redacted]"
_DEPTH = 8  # of facts inside facts
_SHORT = 200  # characters of a text that is worth remembering

_TELLING = re.compile(
    r"token|pass(?:w(?:or)?d|phrase|\Z)|pwd|secret|(?:api|access|private|account)[-_]?key|credential"
    r"|auth(?!or(?!iz))|cookie|session[-_]?id|signature|(?<![A-Za-z])sig\Z",
    re.IGNORECASE,
)
# `word=value`, `word: value`, `"word": "value"`. The word is taken whole and looked at by itself: a search
# for telling parts in it would take quadratic time on a name that an agent made up.
_NAMED = re.compile(r"(?<![\w.-])([\w.-]++)['\"]?\s*(?:=|:(?!:))\s*")
_VALUE = re.compile(r"'[^']{0,255}'|\"[^\"]{0,255}\"|[^\s,;&)}]+")
_FLAG_IN_TEXT = re.compile(r"(?<!\S)(--?[A-Za-z][\w-]*+)(\s+)([^\s-]\S*)")
# What issuers say of the shape of their tokens. Every count has an end: no text keeps the engine busy.
_SHAPES = (
    r"gh[pousr]_[A-Za-z0-9]{16,255}|github_pat_\w{20,255}|gl(?:pat|rt|dt|ptt)-[\w-]{16,128}"
    r"|xox[a-z]-[\w-]{8,255}|xapp-[\w-]{8,255}|(?:AKIA|ASIA)[A-Z0-9]{12,20}|AIza[\w-]{30,60}"
    r"|ya29\.[\w-]{16,255}|sk-(?:ant|proj|or)-[\w-]{16,255}|[rs]k_(?:live|test)_\w{10,255}"
    r"|sk-(?=[A-Za-z_-]{0,64}[0-9])(?=[a-z0-9_-]{0,64}[A-Z])[\w-]{20,255}"
    r"|eyJ[\w-]{8,2048}\.[\w-]{4,4096}(?:\.[\w-]{0,2048})?|hf_[A-Za-z0-9]{20,64}|npm_[A-Za-z0-9]{30,64}"
    r"|pypi-[\w-]{30,255}|dop_v1_[0-9a-f]{40,80}|SG\.[\w-]{16,32}\.[\w-]{16,64}"
)
_TOKEN = re.compile(rf"(?<![A-Za-z0-9])(?:{_SHAPES})")
_LOOSE = re.compile(
    rf"\b(?:sk-[\w-]{{6,}}|gh[a-z]_\w{{6,}}|AKIA\w{{12,}}|eyJ[\w.-]{{10,}}|{_SHAPES})", re.IGNORECASE
)
_SCHEME = re.compile(r"\b(bearer|basic)\s{1,8}[^\s'\",;]{6,}", re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^/\s@]{0,255}:[^/\s]{0,255}@")
_KEY_BLOCK = re.compile(r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----.*", re.DOTALL)
_LONG = re.compile(r"[A-Za-z0-9+/_-]{32,}={0,2}")
_SEGMENT = re.compile(r"[A-Za-z0-9+_-]{32,}={0,2}")
_SECRET_FLAG = re.compile(r"--?[\w.-]+\Z")
# Programs that take a password in a short option, alone or glued to it.
_SHORT_PASSWORD = re.compile(r"(?:mysql\w*|mariadb[\w-]*|sshpass|ldap\w+)\Z")


def argv(words: Sequence[object] | None = None) -> list[str]:
    """Give a command line without secrets, and cut to size.

    Args:
        words: the command line; that of this process if left out.
    """
    if words is None:
        words = getattr(sys, "argv", [])
    program = str(words[0]).rpartition("/")[2][:NAME] if words else ""
    short = bool(_SHORT_PASSWORD.match(program))
    shown: list[str] = []
    hide = False
    before = ""
    for item in [str(item)[:PATH] for item in words[:_ARGV]]:
        if (hide and not item.startswith("--")) or (before in ("-u", "--user") and ":" in item):
            shown.append(_GONE)
            hide, before = False, ""
            continue
        hide = bool(_SECRET_FLAG.match(item) and _TELLING.search(item)) or (short and item == "-p")
        before = item
        shown.append(_word(item, short=short)[:NAME])
    return shown


def _word(text: str, *, short: bool) -> str:
    glued = re.match(r"-[pu](?=.)", text)
    if glued and ((short and glued[0] == "-p") or (glued[0] == "-u" and ":" in text)):
        return glued[0] + _GONE
    text = _FLAG_IN_TEXT.sub(_flagged, _USER.sub(f"{_GONE}@", text))
    for found in _NAMED.finditer(text):
        if _TELLING.search(found[1]) and found.end() < len(text):
            text = text[: found.end()] + _GONE
            break
    text = _LOOSE.sub(_GONE, _SCHEME.sub(rf"\1 {_GONE}", _KEY_BLOCK.sub(_GONE, text)))
    is_path = text.startswith(("/", "./", "../", "~"))
    return (_SEGMENT if is_path else _LONG).sub(_looks_random, text)


def _flagged(found: re.Match[str]) -> str:
    return f"{found[1]}{found[2]}{_GONE}" if _TELLING.search(found[1]) else found[0]


def _looks_random(found: re.Match[str]) -> str:
    text = found[0]
    mixed = all(any(kind(c) for c in text) for kind in (str.isdigit, str.isupper, str.islower))
    return _GONE if mixed or re.fullmatch(r"[0-9a-fA-F]+", text) else text


def message(text: str) -> str:
    """Give a sentence or label without what is named a secret or has the shape of a token."""
    return _short_message(text) if len(text) <= _SHORT else _message(text[:WHY])


def _message(text: str) -> str:
    text = _USER.sub(f"{_GONE}@", _KEY_BLOCK.sub(_GONE, text))
    text = _TOKEN.sub(_GONE, _SCHEME.sub(rf"\1 {_GONE}", text))
    text = _FLAG_IN_TEXT.sub(_flagged, text)
    out, at = [], 0
    for found in _NAMED.finditer(text):
        if found.start() >= at and _TELLING.search(found[1]) and (value := _VALUE.match(text, found.end())):
            out += [text[at : found.end()], _GONE]
            at = value.end()
    return "".join([*out, text[at:]])


_short_message = lru_cache(1024)(_message)  # labels come again and again


def name(path: str) -> str:
    """Give a path without tokens of a known shape and without a password in a URL; slashes stay."""
    text = _TOKEN.sub(_GONE, path[:PATH])
    return _USER.sub(f"{_GONE}@", text) if "://" in text else text


def facts(value: Any, depth: int = _DEPTH) -> Any:
    """Give facts (texts, numbers, lists, dicts) with every text in them as `message` gives it.

    A list under the key ``argv`` is read as a command line; a text under a telling key goes whole.
    """
    if isinstance(value, str):
        return message(value)
    if depth and isinstance(value, list | tuple):
        return [facts(item, depth - 1) for item in value]
    if depth and isinstance(value, dict):
        return {key: _fact(str(key), item, depth - 1) for key, item in value.items()}
    return value


def _fact(key: str, value: Any, depth: int) -> Any:
    if key == "argv" and isinstance(value, list | tuple):
        return argv(value)
    if isinstance(value, str) and _TELLING.search(key):
        return _GONE
    return facts(value, depth)
