"""From lists of rules to the answer for a name, one directory at a time, with a memory.

What makes an answer stricter is matched wide (case-folded, composed, as a file and as a directory);
what makes it looser is matched narrow (exact spelling, real type). So an attacker who respells a
name, or who can make its type uncertain, can only make the answer stricter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from fsjail._decision import Verdict
from fsjail._matcher import Matcher
from fsjail._wildmatch import decode, encode, fold

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fsjail._gitignore import Pattern
    from fsjail._matcher import Level
    from fsjail._rules import RuleList

# What reading and what writing is answered.
Pair: TypeAlias = tuple[Verdict, Verdict]

READ: Final = 0
WRITE: Final = 1
DEFAULT: Final = Verdict(allowed=True, why="default")
INVALID: Final = Verdict(allowed=False, why="jail: invalid name")

_UNCOVERED: Final = (
    Verdict(allowed=False, why="read.allow: no rule"),
    Verdict(allowed=False, why="write.allow: no rule"),
)
_AT_ROOT: Final = (DEFAULT, Verdict(allowed=False, why="jail: root"))
_NO_NAME: Final = (INVALID, INVALID)
# An agent chooses the names that are remembered: the memory is bounded by what they weigh.
_MEMORY: Final = 16 * 2**20
_ENTRY: Final = 200
_FOLDER: Final = 1000
_COMBINATIONS: Final = 256


class _Folder:
    """What is known of a directory before its names are asked for."""

    __slots__ = ("covers", "denied", "folded", "level", "levels", "name", "pairs")

    def __init__(
        self, name: str, folded: str, denied: tuple[Verdict | None, Verdict | None], covers: tuple[int, ...]
    ) -> None:
        self.name = name
        self.folded = folded
        self.denied = denied  # by a deny list of reading, of writing
        self.covers = covers  # for each allow list, the last rule that covers this directory, or -1
        self.pairs: dict[tuple[int, ...], Pair] = {}  # the answers, by the rules that match the name
        self.level: Level | None = None  # for names that are their own folded form
        self.levels: dict[str, Level] = {}  # for others


class Answers:
    """The answers for all names below a root.

    Threads may work out the same answer twice, never a wrong one.

    Attributes:
        known: the answers that were given.
    """

    __slots__ = (
        "_first_allow",
        "_folders",
        "_lists",
        "_matchers",
        "_owners",
        "_root",
        "_verdicts",
        "_weight",
        "known",
    )

    def __init__(self, lists: Sequence[RuleList]) -> None:
        """Sort the rules.

        Args:
            lists: in the order in which they are asked; the allow lists last.
        """
        self._lists = lists
        # Rules are numbered through all lists.
        self._owners = [number for number, entry in enumerate(lists) for _ in entry.rules]
        self._verdicts = [entry.verdict(index) for entry in lists for index in range(len(entry.rules))]
        self._first_allow = sum(not entry.allow for entry in lists)
        self._matchers: dict[str, Matcher] = {}
        self._root = _Folder("", "", (None, None), (-1,) * (len(lists) - self._first_allow))
        self._root.level = self._matcher("folded").level("")
        self.known: dict[tuple[str, bool | None], Pair] = {}
        self._folders = {"": self._root}
        self._weight = 0

    def find(self, name: str, is_dir: bool | None) -> Pair:
        """Work out an answer.

        Args:
            name: canonical: "a/b", or "." for the root; anything else is answered as no name.
            is_dir: whether it is a directory; None for a link, a missing name, or unknown.
        """
        above, slash, base = name.rpartition("/")
        folder = self._folders.get(above)
        if folder is None or not above:
            if name == ".":
                return _AT_ROOT
            folder = self.folder(above) if slash else self._root
        if folder is None:
            return _NO_NAME
        pair = self._answer(folder, base, is_dir)
        self._weight += len(name) + _ENTRY
        if self._weight > _MEMORY:
            self._forget()
        self.known[name, is_dir] = pair
        return pair

    def readable(self, above: str, bases: Iterable[str]) -> list[str]:
        """Choose the files of one directory that may be read.

        Nothing is remembered of them: a tree has more names than an agent asks for.

        Args:
            above: the directory, canonical, "." for the root.
            bases: the last components of their names.
        """
        folder = self.folder(above)
        if folder is None:
            return []
        names = list(bases)
        text = "".join(names)
        if folder.denied[READ] or not (text.isascii() and folder.name.isascii()):
            return [name for name in names if self._answer(folder, name, is_dir=False)[READ].allowed]
        # Most names are like those that no pattern could match: they are told apart all at once.
        narrow = folder.level or self._level(folder, "narrow")
        wide = folder.level or self._level(folder, "wide")
        doubtful = narrow.doubtful(names)
        hits = narrow.always
        if wide is not narrow or text != text.lower():
            folded = wide.doubtful([name.lower() for name in names])
            doubtful.update(name for name in names if name.lower() in folded)
        if wide is not narrow:
            hits += wide.always
        usual = self._said(folder, hits)[READ].allowed
        others = {
            name for name in doubtful if self._answer(folder, name, is_dir=False)[READ].allowed != usual
        }
        if not others:
            return names if usual else []
        return [name for name in names if (name in others) != usual]

    def _answer(self, folder: _Folder, base: str, is_dir: bool | None) -> Pair:
        """Find or work out what holds for a name of this directory."""
        hits: tuple[int, ...] | None
        if folder.level is not None and base.islower() and base.isascii() and "\0" not in base:
            hits = folder.level.hits(base, is_dir)
        else:
            hits = self._hits(folder, base, is_dir)
            if hits is None:
                return _NO_NAME
        return self._said(folder, hits)

    def _said(self, folder: _Folder, hits: tuple[int, ...]) -> Pair:
        """Find or work out what the rules that match a name of this directory say."""
        pair = folder.pairs.get(hits)
        if pair is None:
            pair = self._pair(*self._settle(folder, hits))
            if len(folder.pairs) < _COMBINATIONS:
                folder.pairs[hits] = pair
        return pair

    def may_contain(self, name: str, side: int) -> bool:
        """Tell whether anything below this directory could be allowed.

        Args:
            name: canonical, "." for the root.
            side: READ or WRITE.
        """
        folder = self.folder(name)
        if folder is None or folder.denied[READ] or folder.denied[side]:
            return False
        number = self._first_allow
        asked = False
        for entry, last in zip(self._lists[number:], folder.covers, strict=True):
            if entry.access == side:
                asked = True
                if not self._reaches(entry, last, folder.name):
                    return False
        return asked or side == READ

    def _reaches(self, entry: RuleList, last: int, folder: str) -> bool:
        """Tell whether an allow list covers the folder, or can allow something below it after all."""
        start = 0
        if last >= 0:
            if self._verdicts[last].allowed:
                return True
            start = last + 1 - self._owners.index(self._owners[last])
        later = entry.patterns[start:]
        return any(item and not item.negative and item.reaches_below(folder) for item in later)

    def folder(self, name: str) -> _Folder | None:
        """Give a directory, entering those above it; None if there can be no such directory."""
        if name in {"", "."}:
            return self._root if name else None
        missing: list[str] = []
        above = name
        while (folder := self._folders.get(above)) is None:
            above, slash, base = above.rpartition("/")
            missing.append(base)
            if slash and not above:
                return None  # an absolute name
        for base in reversed(missing):
            below = self._enter(folder, base)
            if below is None:
                return None
            folder = below
        return folder

    def _enter(self, folder: _Folder, base: str) -> _Folder | None:
        hits = self._hits(folder, base, is_dir=True)
        if hits is None:
            return None
        if not base.isascii():
            base = decode(encode(base))
        name = f"{folder.name}/{base}" if folder.name else base
        folded = f"{folder.folded}/{fold(base)}" if folder.folded else fold(base)
        below = _Folder(name, folded, *self._settle(folder, hits))
        if name == folded and not below.denied[READ]:
            below.level = self._matcher("folded").level(name)
        self._weight += len(name) + _FOLDER
        if self._weight > _MEMORY:
            self._forget()
        self._folders[name] = below
        return below

    def _forget(self) -> None:
        self._weight = 0
        self.known.clear()
        self._folders = {"": self._root}
        self._root.pairs.clear()

    def _hits(self, folder: _Folder, base: str, is_dir: bool | None) -> tuple[int, ...] | None:
        """Number the rules that match a name of this directory; None if there can be no such name."""
        if "\0" in base or base in {"", ".", ".."}:
            return None
        pure = base.isascii()
        if pure:
            folded = base.lower()
        else:
            try:
                # One spelling for the same bytes: lone surrogates may spell a whole character.
                base = decode(encode(base))
            except UnicodeEncodeError:
                return None
            folded = fold(base)
        if folder.denied[READ]:
            return ()
        if folded == base and folder.level is not None:
            return folder.level.hits(base, is_dir)
        # Whatever matches an ASCII name matches its folded form as well, once folded itself.
        exact = "narrow" if pure and folder.name.isascii() else "strict"
        hits = self._level(folder, exact).hits(base, is_dir)
        return hits + self._level(folder, "wide").hits(folded, is_dir)

    def _level(self, folder: _Folder, kind: str) -> Level:
        level = folder.levels.get(kind)
        if level is None:
            level = self._matcher(kind).level(folder.folded if kind == "wide" else folder.name)
            folder.levels[kind] = level
        return level

    def _matcher(self, kind: str) -> Matcher:
        """Give the rules for one kind of name, made when first needed.

        Args:
            kind: "strict": all, for exact spellings; "wide": those matched wide, for folded names;
                "narrow": the others; "folded": all, for names that are their own folded form.
        """
        found = self._matchers.get(kind)
        if found is None:
            patterns = [
                (pattern, pattern is not None and pattern.negative is entry.allow)
                for entry in self._lists
                for pattern in entry.patterns
            ]
            chosen = [_form(pattern, kind, wide=wide) for pattern, wide in patterns]
            more = [
                (number, reading if kind == "strict" else reading.folded())
                for number, (pattern, wide) in enumerate(patterns)
                if pattern and wide and kind != "narrow"
                for reading in pattern.older
            ]
            found = self._matchers[kind] = Matcher(chosen, [wide for _, wide in patterns], more)
        return found

    def _settle(
        self, folder: _Folder, hits: tuple[int, ...]
    ) -> tuple[tuple[Verdict | None, Verdict | None], tuple[int, ...]]:
        """Find what the rules that match say: the last one of each list decides."""
        last: dict[int, int] = {}
        for number in hits:
            owner = self._owners[number]
            last[owner] = max(number, last.get(owner, -1))
        denied, covers = list(folder.denied), list(folder.covers)
        for owner in sorted(last):
            number = last[owner]
            side, allow = self._lists[owner].access, owner - self._first_allow
            if allow >= 0:
                # The last rule that covers the name or any directory above it.
                covers[allow] = max(covers[allow], number)
            elif denied[side] is None and not self._verdicts[number].allowed:
                denied[side] = self._verdicts[number]
        return (denied[READ], denied[WRITE]), tuple(covers)

    def _pair(self, denied: tuple[Verdict | None, Verdict | None], covers: tuple[int, ...]) -> Pair:
        """Put the lists in their order: read.deny, write.deny, allow, default."""
        reading, writing = denied
        if reading is not None:
            return (reading, reading)
        allowed: list[Verdict | None] = [None, None]
        for entry, number in zip(self._lists[self._first_allow :], covers, strict=True):
            verdict = self._verdicts[number] if number >= 0 else _UNCOVERED[entry.access]
            before = allowed[entry.access]
            if before is None or before.allowed > verdict.allowed:
                allowed[entry.access] = verdict
        return (allowed[READ] or DEFAULT, writing or allowed[WRITE] or _UNCOVERED[WRITE])


def _form(pattern: Pattern | None, kind: str, *, wide: bool) -> Pattern | None:
    """Give the form of a pattern that a matcher of this kind needs, None if it does not."""
    if kind == "strict" or pattern is None:
        return pattern
    if not wide:
        return None if kind == "wide" else pattern
    return None if kind == "narrow" else pattern.folded()
