"""The temporary folder of a run: the trees that are measured on, each made when it is first needed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from benchmarks import trees
from benchmarks.hosts import KINDS
from benchmarks.works import MIB

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Scale:
    """How large everything is.

    Attributes:
        flat: entries of the two directories that are listed.
        files: files of the three trees that are searched.
        doomed: files of the directory that is deleted.
        patterns: numbers of rules.
        names: names that a policy judges.
        most_bytes: the largest file that is overwritten.
        large_read: bytes of the file whose reading is refused.
        walked: entries of the trees whose walk is looked at for its memory.
        growth: files of the trees whose walk is looked at for its cost per entry.
        settle: whether what was written for a measurement is on the disk before it begins.
    """

    flat: tuple[int, int] = (100, 10_000)
    files: tuple[int, int, int] = (5_000, 20_000, 50_000)
    doomed: int = 10_000
    patterns: tuple[int, ...] = (10, 50, 100, 1000)
    names: int = 5_000
    most_bytes: int = 10 * MIB
    large_read: int = 200 * MIB
    walked: tuple[int, ...] = (2_000, 20_000, 200_000)
    growth: tuple[int, ...] = (1_000, 10_000, 50_000, 200_000)
    settle: bool = True


TINY = Scale(
    flat=(20, 40),
    files=(60, 80, 120),
    doomed=50,
    patterns=(10, 20),
    names=100,
    most_bytes=0,
    large_read=2 * MIB,
    walked=(50,),
    growth=(60, 120),
    settle=False,
)


class Place:
    """The trees of a run, below a temporary folder that the runner removes.

    Args:
        base: the folder.
        scale: how large everything is.
    """

    def __init__(self, base: str, scale: Scale) -> None:
        self.base = base
        self.scale = scale
        self._trees: dict[tuple[int, bool], trees.Tree] = {}
        self._flat: dict[str, list[str]] = {}
        self._number = count()
        self._small = ""

    def small(self) -> str:
        """A root for single files: a file at depth 4, one of 1 MiB, two directories to list."""
        if not self._small:
            root = f"{self.base}/small"
            for folder in ("a/b/c", "w"):
                os.makedirs(f"{root}/{folder}")
            for key in KINDS:
                os.mkdir(f"{root}/w/{key}")
            for name, text in (
                ("a/b/c/kib.txt", trees.text_of(1024)),
                ("mib.txt", trees.text_of(MIB)),
                ("a/one.secret", "one\n"),
                ("a/two.secret", "two\n"),
                ("../outside1.txt", "outside\n"),
                ("../outside2.txt", "outside\n"),
            ):
                with open(f"{root}/{name}", "w", encoding="utf-8") as file:
                    file.write(text)
            for name, number in zip(("flats", "flatl"), self.scale.flat, strict=True):
                self._flat[name] = trees.make_flat(f"{root}/{name}", number)
            self._small = root
            self._settle()
        return self._small

    def flat(self, folder: str) -> list[str]:
        """The names in one of the two directories."""
        return self._flat[folder]

    def tree(self, files: int, *, empty: bool = False) -> trees.Tree:
        """A tree of so many files."""
        found = self._trees.get((files, empty))
        if found is None:
            root = f"{self.base}/tree{files}{'e' if empty else ''}"
            found = self._trees[files, empty] = trees.make_tree(root, files, empty=empty)
            self._settle()
        return found

    def tree_of(self, files: int) -> Callable[[], trees.Tree]:
        """The same, later."""
        return lambda: self.tree(files)

    def root_of(self, files: int) -> Callable[[], str]:
        """Its root, later."""
        return lambda: self.tree(files).root

    def doomed(self, files: int) -> str:
        """Something to delete: a directory of so many files, or one file of 1 KiB; gives its name."""
        name = f"doomed{next(self._number)}"
        path = f"{self.small()}/{name}"
        if files:
            trees.make_deletable(path, files)
        else:
            with open(path, "wb") as file:
                file.write(b"x" * 1024)
        self._settle()
        return name

    def _settle(self) -> None:
        if self.scale.settle:
            os.sync()
