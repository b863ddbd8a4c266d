"""Patterns that match as git does, for users of the pathspec library.

Importing this module registers the pattern type with pathspec under the name ``fsjail``::

    from fsjail.pathspec import PathSpec

    spec = PathSpec.from_lines("fsjail", ["*.log", "/build/"])

pathspec's own backends hand a pattern to a regular expression engine as text, character by
character. git compares bytes, so these patterns match by themselves, which is what pathspec's
``simple`` backend asks for; `PathSpec` of this module chooses it. The order of evaluation stays
pathspec's. Lists of a `Policy` follow git there too: a denied directory denies what is beneath.
"""

from __future__ import annotations

from typing import Any, NoReturn

import pathspec
from pathspec.pattern import Pattern, RegexPattern
from pathspec.util import register_pattern

from fsjail._gitignore import parse
from fsjail._matcher import Matcher
from fsjail._wildmatch import decode

NAME = "fsjail"


class GitPattern(RegexPattern):
    """One line of a gitignore file.

    Attributes:
        pattern: the line as it was given.
        include: True for a pattern, False for a ``!`` pattern, None for a comment or a blank line.

    Raises:
        ValueError: the pattern can never match; with the reason.
    """

    __slots__ = ("_matcher",)

    def __init__(self, pattern: str | bytes, include: bool | None = None) -> None:
        if include is not None:
            raise TypeError("whether a gitignore pattern includes stands in its text")
        parsed = parse(pattern if isinstance(pattern, str) else decode(pattern))
        Pattern.__init__(self, None if parsed is None else not parsed.negative)
        self.pattern = pattern
        self._matcher = Matcher([parsed])

    @property
    def regex(self) -> NoReturn:  # type: ignore[override]
        """Not offered: no engine would match bytes.

        Raises:
            TypeError: always; what asked for it is another backend than ``simple``.
        """
        raise TypeError(
            'these patterns match by themselves: use fsjail.pathspec.PathSpec, or backend="simple"'
        )

    def match_file(self, file: str | bytes) -> bool | None:
        """Match a name, or a directory above it.

        Args:
            file: relative, ``/`` between its parts; a directory ends with ``/``.

        Returns:
            True, or None where nothing matches; pathspec asks for no more.
        """
        text = file if isinstance(file, str) else decode(file)
        name = text.rstrip("/")
        is_dir = name != text
        while name:
            if self._matcher.last_match(name, is_dir) is not None:
                return True
            name = name.rpartition("/")[0]
            is_dir = True
        return None

    def __eq__(self, other: object) -> bool:
        """Patterns are equal that were written alike."""
        return self.pattern == other.pattern if isinstance(other, GitPattern) else NotImplemented

    def __hash__(self) -> int:
        """Agree with equality."""
        return hash(self.pattern)

    def __copy__(self) -> GitPattern:
        """Read the same text again."""
        return type(self)(self.pattern)  # type: ignore[arg-type]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the text."""
        return (type(self), (self.pattern,))


class PathSpec(pathspec.PathSpec[GitPattern]):
    """pathspec's ``PathSpec``, with the backend that lets patterns match by themselves."""

    def __init__(self, patterns: Any, *, backend: str | None = None, **options: Any) -> None:
        super().__init__(patterns, backend=backend or "simple", **options)


register_pattern(NAME, GitPattern, override=True)
