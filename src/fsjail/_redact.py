"""The command line of this process, cut to size and without secrets, for the audit log.

A guess by name and shape: what looks like a password, token or key is replaced. Pure.
"""

from __future__ import annotations

import re
import sys

from fsjail._record import NAME, PATH

_ARGV = 32  # how many words are kept
_GONE = "[redacted]"
_TELLING = (
    r"[\w.-]*(?:token|passw(?:or)?d|passphrase|passwd|pwd|secret|api[-_]?key|access[-_]?key|private[-_]?key"
    r"|credential|auth(?!or))[\w.-]*"
)
_SECRET_FLAG = re.compile(rf"-{{0,2}}{_TELLING}\Z", re.IGNORECASE)
_SECRET_VALUE = re.compile(rf"(?<![\w.-])(-{{0,2}}{_TELLING}(?:=|:(?!:))\s*).*", re.IGNORECASE | re.DOTALL)
_SECRET_TOKEN = re.compile(
    r"\b(?:sk-[\w-]{6,}|gh[a-z]_\w{6,}|github_pat_\w+|glpat-[\w-]+|xox[a-z]-[\w-]+|AKIA\w{12,}|eyJ[\w.-]{10,})"
    r"|(?<=bearer )\S+",
    re.IGNORECASE,
)
_SECRET_URL = re.compile(r"(?<=://)[^/\s]*:[^/\s]*@")
_LONG = re.compile(r"[A-Za-z0-9+/_-]{32,}={0,2}")
_SEGMENT = re.compile(r"[A-Za-z0-9+_-]{32,}={0,2}")


def _looks_random(found: re.Match[str]) -> str:
    text = found[0]
    mixed = all(any(kind(c) for c in text) for kind in (str.isdigit, str.isupper, str.islower))
    return _GONE if mixed or re.fullmatch(r"[0-9a-fA-F]+", text) else text


def argv() -> list[str]:
    """Give this process's command line without secrets."""
    shown: list[str] = []
    hide = False
    for item in [str(item)[:PATH] for item in getattr(sys, "argv", [])[:_ARGV]]:
        if hide and not item.startswith("--"):
            shown.append(_GONE)
            hide = False
            continue
        if shown and shown[-1] in ("-u", "--user") and ":" in item:
            shown.append(_GONE)
            continue
        hide = item.startswith("-") and bool(_SECRET_FLAG.match(item))
        text = _SECRET_URL.sub(f"{_GONE}@", item)
        text = _SECRET_VALUE.sub(rf"\1{_GONE}", text)
        text = _SECRET_TOKEN.sub(_GONE, text)
        is_path = text.startswith(("/", "./", "../", "~"))
        text = (_SEGMENT if is_path else _LONG).sub(_looks_random, text)
        shown.append(text[:NAME])
    return shown
