"""The lists of rules: taking them from the caller, reading them, finding those without effect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol, TypeAlias

from fsjail._decision import Rule, Verdict, show
from fsjail._errors import ConfigError
from fsjail._gitignore import Pattern, parse
from fsjail._matcher import Matcher
from fsjail._presets import PRESETS
from fsjail._wildmatch import decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Access: TypeAlias = Literal["read", "write"]

SIDES: Final[dict[str, int]] = {"read": 0, "write": 1}

# Neither a file name nor a state folder can lie about being fsjail's own: any depth, any spelling.
OWN_FILES: Final = (".fsjail", "fsjail.toml")


class _Spec(Protocol):
    """What is needed of a ``pathspec.PathSpec``; pathspec is not imported here."""

    @property
    def patterns(self) -> Sequence[Any]: ...


@dataclass(frozen=True, slots=True, init=False)
class Rules:
    """An allow list and a deny list.

    Attributes:
        allow: what is allowed; None when nothing was said, which is not the same as an empty list.
        deny: what is denied, whatever the allow list says.
    """

    allow: tuple[Rule, ...] | None
    deny: tuple[Rule, ...]

    def __init__(
        self,
        allow: Iterable[str | Rule] | _Spec | None = None,
        deny: Iterable[str | Rule] | _Spec | None = None,
    ) -> None:
        """Take the lists.

        Args:
            allow: patterns in gitignore syntax, or a pathspec ``PathSpec`` of gitignore patterns.
            deny: the same.

        Raises:
            ConfigError: a pattern of a ``PathSpec`` has no gitignore text.
            TypeError: one string instead of a list, or something in it that is no pattern.
        """
        object.__setattr__(self, "allow", None if allow is None else tuple(_rules(allow)))
        object.__setattr__(self, "deny", () if deny is None else tuple(_rules(deny)))


def _rules(given: Iterable[str | Rule] | _Spec) -> Iterator[Rule]:
    if isinstance(given, str | bytes):
        raise TypeError(f"a list of patterns is needed, not the one string {given!r}")
    patterns = getattr(given, "patterns", None)
    items: Iterable[Any] = given if patterns is None else map(_spec_text, patterns)  # type: ignore[assignment]
    for item in items:
        if not isinstance(item, str | Rule):
            raise TypeError(f"a pattern is a str or a Rule, not {type(item).__name__}")
        yield item if isinstance(item, Rule) else Rule(item)


def _spec_text(pattern: object) -> str:
    """Give the gitignore text of a pathspec pattern."""
    text = getattr(pattern, "pattern", None)
    # pathspec's plain RegexPattern keeps a regular expression under the same name.
    gitignore = any("git" in kind.__name__.lower() for kind in type(pattern).__mro__)
    if not gitignore or not isinstance(text, str | bytes):
        msg = f"a pattern of this spec has no gitignore text: {type(pattern).__name__}"
        raise ConfigError(msg)
    return text if isinstance(text, str) else decode(text)


class RuleList(NamedTuple):
    """One list of rules, ready to be matched; git's last-match rule holds inside of it."""

    access: int
    allow: bool
    label: str
    rules: tuple[Rule, ...]
    patterns: tuple[Pattern | None, ...]

    def verdict(self, index: int) -> Verdict:
        """What it means that this rule is the last that matches."""
        pattern, rule = self.patterns[index], self.rules[index]
        denies = pattern is None or pattern.negative is self.allow
        return Verdict(not denies, "builtin" if rule.source == "builtin" else f"{self.label}[{index}]", rule)


def _load(side: int, label: str, rules: Iterable[Rule], *, allow: bool = False) -> RuleList:
    """Read the rules of a list.

    Raises:
        ConfigError: one cannot work, or all are comments.
    """
    named = tuple(Rule(rule.pattern, rule.source or label, rule.line) for rule in rules)
    patterns: list[Pattern | None] = []
    for index, rule in enumerate(named):
        try:
            patterns.append(parse(rule.pattern))
        except ValueError as error:
            place = f"{label}[{index}]"
            own = rule.source == label
            msg = f"{'the rule' if own else place} {show(rule.pattern)} cannot work: {error}"
            raise ConfigError(msg, place if own else rule.source, rule.line) from None
    if named and not any(patterns):
        msg = f"{label} holds nothing but comments; an empty list is written []"
        raise ConfigError(msg, named[0].source, named[0].line)
    return RuleList(side, allow, label, named, tuple(patterns))


def all_lists(
    own: tuple[Rules, Rules],
    presets: tuple[str, ...],
    guards: tuple[tuple[str, str], ...],
    more: tuple[tuple[Rules, Rules], ...],
) -> Iterator[RuleList]:
    """Give all lists in the order in which they are asked; the allow lists last.

    Args:
        own: the policy's lists for reading and for writing.
        presets: names of presets.
        guards: built-in denials of this policy, beyond those of all policies.
        more: further lists, each as own.
    """
    built_in = [(0, pattern) for pattern in OWN_FILES]
    built_in += [(SIDES[access], pattern) for access, pattern in guards]
    layers = (own, *more)
    for side, access in enumerate(SIDES):
        yield _load(side, "builtin", [Rule(pattern, "builtin") for at, pattern in built_in if at == side])
        for layer in layers:
            yield _load(side, f"{access}.deny", layer[side].deny)
        for name in presets:
            if PRESETS[name].access == access:
                yield _load(side, f"preset {name}", [Rule(text) for text in PRESETS[name].patterns])
    for side, access in enumerate(SIDES):
        for layer in layers:
            allow = layer[side].allow
            if allow is not None:
                yield _load(side, f"{access}.allow", allow, allow=True)


def dead_rules(entry: RuleList) -> Iterator[str]:
    """Find the ``!`` rules of a list that can never take anything back."""
    for index, pattern in enumerate(entry.patterns):
        if pattern is None or not pattern.negative:
            continue
        rule = entry.rules[index]
        at = f"{entry.label}[{index}]" + ("" if rule.line is None else f" ({rule})")
        if not any(before and not before.negative for before in entry.patterns[:index]):
            yield f"{at}: {show(pattern.text)} has no effect: it stands before every rule it could take back"
        elif not entry.allow and (above := _denied_above(entry, pattern)):
            yield f"{at}: {show(pattern.text)} has no effect: {show(above)} is denied whole, not its contents"


def _denied_above(entry: RuleList, pattern: Pattern) -> str:
    """Give the directory above all names of a ``!`` rule that its own list denies, or ""."""
    matcher = Matcher(entry.patterns)
    above: list[str] = []
    for part in pattern.path:
        if part is None or part.literal is None:
            break
        above.append(decode(part.literal))
        number = matcher.last_match("/".join(above), is_dir=True)
        hit = None if number is None else entry.patterns[number]
        if hit is not None and not hit.negative:
            return "/".join(above)
    return ""
