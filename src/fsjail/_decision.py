"""The values of an answer: the rule, the verdict on one name, the decision on one call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

_SHOWN: Final = 200

_JAIL: Final = {
    "jail: outside": "the path leads out of the root",
    "jail: root": "the root itself stays as it is",
    "jail: invalid name": "this cannot be the name of a file",
    "jail: into itself": "a directory cannot go into itself",
}
# What a guard refuses by itself, without a rule; by its labels.
OF_GUARD: Final = {
    "guard: process": "the new process would not be guarded",
    "guard: native code": "native code would not be guarded",
    "guard: thread": "the new thread would not be guarded",
    "guard: another jail": "another jail would have rules of its own",
    "guard: unclear": "it cannot be told what this leads to",
    "guard: failed": "the guard could not answer",
}


def show(text: str) -> str:
    """Quote a name or a pattern for a sentence: one line, no control characters, not too long."""
    return repr(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…")


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a list.

    Attributes:
        pattern: gitignore syntax.
        source: the file it stands in, or a label such as ``read.deny``, ``builtin``, ``preset vcs``.
        line: its line in the file, counted from 1, where known.
    """

    pattern: str
    source: str = ""
    line: int | None = None

    def __str__(self) -> str:
        # The folder of a configuration file is a path of the host, which no agent may learn.
        where = self.source.replace("\\", "/").rpartition("/")[2]
        if self.line is not None:
            where = f"{where} line {self.line}"
        return f"{show(self.pattern)} of {where}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer for one name.

    Attributes:
        allowed: the answer.
        why: the label that says why.
        rule: the rule that decided, if one did.
    """

    allowed: bool
    why: str
    rule: Rule | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one question: true when allowed, one sentence as text.

    Attributes:
        allowed: the answer.
        op: the operation that was asked for.
        path: the path as it was asked for.
        resolved: the name in the root that it stands for, where it was looked up.
        why: a stable label, such as ``default``, ``read.deny[0]``, ``write.allow: no rule``,
            ``preset secrets[2]``, ``builtin``, ``jail: outside``.
        rule: the rule that decided, if one did.
        hint: what is allowed instead; part of the sentence of a refusal.
    """

    allowed: bool
    op: str
    path: str
    resolved: str | None
    why: str
    rule: Rule | None
    hint: str = field(default="", repr=False, compare=False)

    def __bool__(self) -> bool:
        return self.allowed

    def __str__(self) -> str:
        what = f"{self.op} {show(self.path)}"
        if self.allowed:
            by = f", by the rule {self.rule}" if self.rule else ""
            return f"{what} is allowed ({self.why}){by}."
        hint = f"; {self.hint}" if self.hint else ""
        return f"{what} is denied: {self._reason()}{hint}."

    def _reason(self) -> str:
        label, _, below = self.why.partition(" on ")
        on = f" (beneath it: {show(below)})" if below else ""
        if label == "builtin":
            return f"fsjail's own files cannot be reached{on} ({label})"
        if label.startswith("jail: "):
            return _JAIL.get(label, "the jail cannot do this") + f"{on} ({label})"
        if label in OF_GUARD:
            return f"{OF_GUARD[label]} ({label})"
        if self.rule is None:
            return f"no rule covers it{on} ({label})"
        return f"{label} is the rule {self.rule}{on}"
