"""The trees and rules that everything is measured on: the same at every run, and known beforehand.

A tree is written from a seed, and what a search in it has to find is noted while it is written. So
no answer of a measured system is taken on trust, that of fsjail neither.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from itertools import islice, product

SEED = 20_240_607
PER_FOLDER = 25  # files in a folder
BRANCHES = 6  # folders in a folder

LITERAL = "deadline_ms"
RARE = "xyzzy_marker"
REGEX = r"def [a-z]+_handler\("
NOWHERE = "no_such_text_anywhere"
NEEDLES = {
    "literal": (LITERAL, True),
    "rare": (RARE, True),
    "regex": (REGEX, False),
    "nothing": (NOWHERE, True),
}

# 48 more rules of the kinds that people write; none of them matches in the trees.
_WORDS = (
    "build",
    "dist",
    "cache",
    "vendor",
    "logs",
    "coverage",
    "fixtures",
    "snapshots",
    "legacy",
    "generated",
)
_ENDINGS = ("log", "sqlite", "pyc", "bak", "orig", "swp", "tmp", "cer", "p12", "keystore", "dump", "lockb")
_SYLLABLES = (
    "re",
    "con",
    "ta",
    "mi",
    "lo",
    "ver",
    "sub",
    "ne",
    "pro",
    "da",
    "fi",
    "que",
    "ser",
    "val",
    "ex",
    "po",
)
_SUFFIXES = (".py", ".py", ".py", ".py", ".md", ".txt", ".json", ".js", ".html", ".yaml")


def patterns(number: int) -> list[str]:
    """Deny rules in gitignore syntax; the first two match in the trees, whatever the number."""
    rules = ["private_*/", "*.secret"]
    for index in range(number - len(rules)):
        word = _WORDS[index % len(_WORDS)]
        ending = _ENDINGS[index % len(_ENDINGS)]
        turn = index // len(_WORDS)
        rules.append(
            (
                f"{word}_{turn}/",
                f"*.{ending}{turn or ''}",
                f"/{word}/{turn}/**",
                f"**/{word}_{turn}/*.{ending}",
                f"{word}-{turn}.json",
                f"!example_{word}_{turn}.secret",
                f"/src/{word}_{turn}*.py",
            )[index % 7]
        )
    return rules


def denied(path: str) -> bool:
    """Whether the rules above, and the preset for secrets, keep this name of a tree from being read."""
    *folders, name = path.split("/")
    return name == ".env" or name.endswith(".secret") or any(part.startswith("private_") for part in folders)


@dataclass(slots=True)
class Tree:
    """A tree on the disk and what is in it.

    Attributes:
        root: the directory.
        files: the names of the files, as they were written.
        folders: the number of directories, without the root.
        hits: for each needle the lines that hold it, as (file, number from 1).
    """

    root: str
    files: list[str] = field(default_factory=list)
    folders: int = 0
    hits: dict[str, set[tuple[str, int]]] = field(default_factory=lambda: {name: set() for name in NEEDLES})

    def readable(self) -> set[str]:
        """The files that the rules let be read."""
        return {path for path in self.files if not denied(path)}


def folder_names(number: int) -> list[str]:
    """Names of so many directories, parents first; every 20th is private."""
    rng = random.Random(SEED)  # noqa: S311 - repeatable, not secret
    names: list[str] = []
    for index in range(number):
        parent = "" if index < BRANCHES else f"{names[(index - BRANCHES) // BRANCHES]}/"
        kind = "private_" if index % 20 == 13 else ""  # noqa: PLR2004 - any remainder would do
        names.append(f"{parent}{kind}{''.join(rng.choices(_SYLLABLES, k=3))}{index}")
    return names


def _blocks() -> list[str]:
    """Texts of 200 to 4000 bytes, in lines of words."""
    rng = random.Random(SEED)  # noqa: S311 - repeatable, not secret
    words = ["".join(parts) for parts in islice(product(_SYLLABLES, repeat=3), 0, None, 7)]
    blocks = []
    for size in range(200, 4000, 40):
        text = ""
        while len(text) < size:
            text += "    " * rng.randrange(3) + " ".join(rng.choices(words, k=rng.randrange(2, 12))) + "\n"
        blocks.append(text)
    return blocks


def make_tree(root: str, files: int, *, empty: bool = False) -> Tree:
    """Write a tree.

    Args:
        root: where; it is made.
        files: how many files.
        empty: whether the files hold nothing.
    """
    tree = Tree(root)
    blocks = _blocks()
    folders = folder_names(max(1, files // PER_FOLDER))
    os.mkdir(root)
    for name in folders:
        os.mkdir(f"{root}/{name}")
    tree.folders = len(folders)
    rare = max(1, files // 3)
    for index in range(files):
        suffix = _SUFFIXES[index % len(_SUFFIXES)]
        name = f"f{index}{suffix}"
        if index % 33 == 32:  # noqa: PLR2004 - about one in a folder
            name = f"f{index}.secret"
        elif index % 500 == 250:  # noqa: PLR2004 - in some folders
            name = ".env"
        path = f"{folders[index // PER_FOLDER % len(folders)]}/{name}"
        tree.files.append(path)
        lines = []
        if not empty:
            lines = [f"# {name}\n", blocks[index * 7 % len(blocks)]]
            for needle, present, text in (
                ("literal", index % 50 == 0, f"    timeout = {LITERAL} / 1000\n"),
                ("regex", index % 40 == 7, f"def event{index % 3 * 'x'}_handler(request):\n"),  # noqa: PLR2004
                ("rare", index % rare == rare // 2, f"    return {RARE}\n"),
            ):
                if present:
                    tree.hits[needle].add((path, 1 + sum(part.count("\n") for part in lines)))
                    lines.append(text)
        fd = os.open(f"{root}/{path}", os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.write(fd, "".join(lines).encode())
        finally:
            os.close(fd)
    return tree


def make_flat(root: str, files: int) -> list[str]:
    """A single directory of files of 10 bytes, every 25th of them denied; gives their names."""
    os.mkdir(root)
    names = [f"item{index}.{'secret' if index % 25 == 3 else 'txt'}" for index in range(files)]  # noqa: PLR2004
    for name in names:
        with open(f"{root}/{name}", "wb") as file:
            file.write(b"ten bytes\n")
    return names


def make_deletable(root: str, files: int) -> None:
    """A tree without anything that the rules deny, so that it may be deleted; a hundred files a folder."""
    os.mkdir(root)
    for index in range(files):
        if index % 100 == 0:
            os.mkdir(f"{root}/d{index // 100}")
        os.close(os.open(f"{root}/d{index // 100}/f{index}", os.O_WRONLY | os.O_CREAT, 0o644))


def text_of(size: int) -> str:
    """So many bytes of text in lines of 1 KiB at most."""
    line = "".join(random.Random(SEED).choices("abcdefghij klmnop", k=1023)) + "\n"  # noqa: S311 - repeatable
    return (line * (size // 1024 + 1))[-size:]


def names_to_judge(number: int) -> list[str]:
    """Names for a policy: 50 in each of the folders of a tree, without anything on the disk."""
    folders = [name for name in folder_names(max(1, number // 50)) if not denied(f"{name}/x")]
    return [
        f"{folders[index // 50 % len(folders)]}/module_{index}{_SUFFIXES[index % len(_SUFFIXES)]}"
        for index in range(number)
    ]
