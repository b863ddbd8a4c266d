"""What may be read and written: from gitignore rules to answers, without touching the disk.

What makes an answer stricter is matched wide (case-folded, composed, as a file and as a directory);
what makes it looser is matched narrow (exact spelling, real type). So an attacker who respells a
name, or who can make its type uncertain, can only make the answer stricter.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias

from fsjail._answers import DEFAULT, INVALID, READ, WRITE, Answers, Pair
from fsjail._decision import Decision, Rule, Verdict, show
from fsjail._errors import ConfigError
from fsjail._presets import PRESETS
from fsjail._rules import SIDES, Access, RuleList, Rules, all_lists, dead_rules
from fsjail._wildmatch import encode

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["OPERATIONS", "Access", "Decision", "Policy", "Rule", "Rules", "Verdict"]

OPERATIONS: Final = ("read", "list", "write", "edit", "mkdir", "delete", "copy", "move")

_Guards: TypeAlias = "tuple[tuple[str, str], ...]"
_Layers: TypeAlias = "tuple[tuple[Rules, Rules], ...]"

_MAX_NAME_BYTES: Final = 4095
_HINTED: Final = 8

_FILTERED: Final = Verdict(allowed=True, why="filtered")
_OUTSIDE: Final = Verdict(allowed=False, why="jail: outside")


class Policy:
    """Which names may be read and written.

    Does not stop: reading through a hard link that has an allowed name, and programs that do not
    go through the jail.

    Attributes:
        read: the lists for reading.
        write: the lists for writing.
        presets: the names of the built-in lists that hold.
    """

    __slots__ = ("_answers", "_guards", "_known", "_lists", "_more", "presets", "read", "write")

    read: Rules
    write: Rules
    presets: tuple[str, ...]
    _guards: _Guards
    _more: _Layers
    _lists: tuple[RuleList, ...]
    _answers: Answers
    _known: dict[tuple[str, bool | None], Pair]

    def __init__(
        self,
        read: Rules = Rules(),  # noqa: B008 (a frozen value)
        write: Rules = Rules(),  # noqa: B008
        *,
        presets: Iterable[str] = ("secrets", "vcs", "toolchain"),
    ) -> None:
        """Check and sort the rules.

        Args:
            read: the lists for reading; without ``allow`` the whole root may be read.
            write: the lists for writing; without ``allow`` nothing may be written.
            presets: names of built-in deny lists: ``secrets``, ``vcs``, ``toolchain``.

        Raises:
            ConfigError: a rule that cannot work, a list of comments only, an unknown preset.
            TypeError: one string instead of a list of presets.
        """
        if isinstance(presets, str):
            raise TypeError(f"a list of presets is needed, not the one string {presets!r}")
        self._build(read, write, tuple(dict.fromkeys(presets)), (), ())

    def _build(
        self,
        read: Rules,
        write: Rules,
        presets: tuple[str, ...],
        guards: _Guards,
        more: _Layers,
    ) -> None:
        for name in presets:
            if name not in PRESETS:
                msg = f"there is no preset {name!r}; known are {', '.join(PRESETS)}"
                raise ConfigError(msg, "presets")
        lists = tuple(all_lists((read, write), presets, guards, more))
        answers = Answers(lists)
        for attribute, value in (
            ("read", read),
            ("write", write),
            ("presets", presets),
            ("_guards", guards),
            ("_more", more),
            ("_lists", lists),
            ("_answers", answers),
            ("_known", answers.known),
        ):
            object.__setattr__(self, attribute, value)

    @classmethod
    def read_only(cls) -> Policy:
        """Everything but secrets can be read, nothing can be written."""
        return cls()

    @classmethod
    def workspace(cls) -> Policy:
        """Everything can be read and written but what the presets deny."""
        return cls(write=Rules(allow=["*"]))

    def guarded(self, rules: Iterable[tuple[str, str]]) -> Policy:
        """Give a policy with more built-in denials, which no rule can take back.

        Args:
            rules: pairs of "read" (and with it writing) or "write", and a pattern.

        Raises:
            ConfigError: a pattern cannot work.
        """
        return _restore(self.read, self.write, self.presets, (*self._guards, *rules), self._more)

    def tightened(self, other: Policy) -> Policy:
        """Give a policy that allows what both allow.

        Each deny list keeps to itself: a ``!`` in one takes nothing back from another. An allow
        list of the other narrows further; where it has none, it says nothing.

        Args:
            other: the policy to add.
        """
        return _restore(
            self.read,
            self.write,
            tuple(dict.fromkeys((*self.presets, *other.presets))),
            (*self._guards, *other._guards),
            (*self._more, (other.read, other.write), *other._more),
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """Rules that have no effect, one sentence each."""
        return tuple(warning for entry in self._lists for warning in dead_rules(entry))

    def check(self, op: str, path: str | os.PathLike[str], *, is_dir: bool | None = None) -> Decision:
        """Answer by the name alone, without looking at the disk.

        Args:
            op: one of read, list, write, edit, mkdir, delete, copy, move; of copy and move, this
                is the answer for the source.
            path: relative to the root, with ``/`` between its parts; normalised before matching.
            is_dir: whether it is a directory; None for a link, a missing name, or unknown.

        Raises:
            TypeError: the path is no text.
            ValueError: there is no such operation.
        """
        if op not in OPERATIONS:
            raise ValueError(f"there is no operation {op!r}; known are {', '.join(OPERATIONS)}")
        asked: object = os.fspath(path)
        if not isinstance(asked, str):
            raise TypeError(f"a path is text, not {type(asked).__name__}")
        name = _normalised(asked)
        if isinstance(name, Verdict):
            return self.decision(op, asked, name)
        if op == "mkdir" and is_dir is None:
            is_dir = True
        elif is_dir is False and asked.endswith("/"):
            is_dir = None
        return self.decision(op, asked, self.judge_op(op, name, is_dir))

    def decision(
        self, op: str, path: str, verdict: Verdict, *, resolved: str | None = None, below: str | None = None
    ) -> Decision:
        """Dress a verdict for a caller.

        Args:
            op: the operation that was asked for.
            path: the path as it was asked for.
            verdict: the answer.
            resolved: the canonical name that the path stands for, where it was looked up.
            below: the name beneath the path that decided, in an operation on a tree.
        """
        why = verdict.why if below is None else f"{verdict.why} on {below}"
        hint = "" if verdict.allowed else self._hint(op, verdict)
        return Decision(verdict.allowed, op, path, resolved, why, verdict.rule, hint)

    def judge_op(self, op: str, name: str, is_dir: bool | None) -> Verdict:
        """Give the verdict for an operation on a canonical name; of copy and move, on the source."""
        read = self.judge("read", name, is_dir)
        if op == "list":
            return self._judge_list(name, read)
        if op in {"read", "copy"}:
            return read
        write = self.judge("write", name, is_dir)
        # Reading is needed as well. The deny lists of writing are asked before read.allow.
        if op in {"edit", "move"} and not read.allowed and (
            write.allowed or write.why.startswith("write.allow")
        ):  # fmt: skip
            return read
        return write

    def judge(self, access: str, name: str, is_dir: bool | None) -> Verdict:
        """Give the verdict for one name.

        Args:
            access: "read" or "write".
            name: canonical: "a/b", or "." for the root.
            is_dir: whether it is a directory; None for a link, a missing name, or unknown.
        """
        pair = self._known.get((name, is_dir))
        if pair is None:
            pair = self._answers.find(name, is_dir)
        return pair[SIDES[access]]

    def readable(self, folder: str, names: Iterable[str]) -> list[str]:
        """Choose the files of one directory that may be read; the answers are those of :meth:`judge`.

        Args:
            folder: its canonical name, "." for the root.
            names: the last components of the names of files; of links and directories ask :meth:`judge`.
        """
        return self._answers.readable(folder, names)

    def may_contain(self, name: str, access: str = "read") -> bool:
        """Tell whether anything below this directory could be allowed.

        Args:
            name: canonical, "." for the root.
            access: "read" or "write".
        """
        return self._answers.may_contain(name, SIDES[access])

    def _judge_list(self, name: str, read: Verdict) -> Verdict:
        if not read.allowed and not (read.why.startswith("read.allow") and self.may_contain(name)):
            return read
        # Without any rule but the built-in ones, a list is what is there.
        rules = any(
            entry.access == READ and (entry.allow or entry.rules) and entry.label != "builtin"
            for entry in self._lists
        )
        return _FILTERED if rules else DEFAULT

    def _hint(self, op: str, verdict: Verdict) -> str:
        if verdict.why in {_OUTSIDE.why, INVALID.why}:
            return "paths are relative to the root"
        reading = op in {"read", "list", "copy"} or verdict.why.startswith("read.allow")
        side, verb = (READ, "reading") if reading else (WRITE, "writing")
        lists = [entry.rules for entry in self._lists if entry.allow and entry.access == side]
        if not lists:
            return "what no rule denies can be read" if reading else "nothing can be written in this jail"
        shown = [rule.pattern for rule in lists[0]]
        if not shown:
            return f"{verb} is allowed nowhere"
        more = f", and {len(shown) - _HINTED} more" if len(shown) > _HINTED else ""
        return f"{verb} is allowed in: " + ", ".join(show(text)[1:-1] for text in shown[:_HINTED]) + more

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a policy cannot be changed; make a new one (attribute {name!r})")

    def __delattr__(self, name: str) -> NoReturn:
        self.__setattr__(name, None)

    def _parts(self) -> tuple[Any, ...]:
        return (self.read, self.write, self.presets, self._guards, self._more)

    def __eq__(self, other: object) -> bool:
        return self._parts() == other._parts() if isinstance(other, Policy) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._parts())

    def __repr__(self) -> str:
        return f"Policy(read={self.read!r}, write={self.write!r}, presets={self.presets!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restore, self._parts())


def _restore(
    read: Rules,
    write: Rules,
    presets: tuple[str, ...],
    guards: _Guards,
    more: _Layers,
) -> Policy:
    policy = Policy.__new__(Policy)
    policy._build(read, write, presets, guards, more)  # noqa: SLF001 (a second way to make one)
    return policy


def _normalised(path: str) -> str | Verdict:
    """Give the canonical name of a path, by its text alone, or the refusal."""
    try:
        size = len(encode(path))
    except UnicodeEncodeError:
        return INVALID
    if not path or size > _MAX_NAME_BYTES or "\0" in path:
        return INVALID
    if path.startswith("/"):
        return _OUTSIDE
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if not parts:
                return _OUTSIDE
            parts.pop()
        elif part not in {"", "."}:
            parts.append(part)
    return "/".join(parts) or "."
