"""The work that systems share: reading, writing, listing, searching, deleting, refusing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks import trees

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.place import Place

READERS = (
    "fsjail", "bare", "plain", "path-jail", "fsspec", "langchain",
    "deepagents", "deepagents-rules", "pydantic-ai", "mcp",
)  # fmt: skip
WRITERS = ("fsjail-none", "hand-none", *READERS[2:])
GLOBBERS = (
    "fsjail", "bare", "rg", "git", "plain", "fsspec", "langchain",
    "deepagents", "deepagents-rules", "pydantic-ai", "mcp",
)  # fmt: skip
GREPPERS = (
    "fsjail", "bare", "rg", "rg-all", "deepagents", "deepagents-rg",
    "deepagents-rules", "deepagents-rules-rg", "pydantic-ai", "pydantic-ai-rg",
)  # fmt: skip
DELETERS = (
    "fsjail",
    "fsjail-none",
    "bare",
    "fsspec",
    "deepagents",
    "deepagents-rules",
    "send2trash",
    "trash-cli",
)
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of work for all systems that have the operation.

    Attributes:
        key: its name in the results; what stands before the first dot is its part.
        title: for a reader.
        op: the operation; with "first " before it, each call is the first of a system made anew.
        systems: that are measured; the first is fsjail.
        place: gives the root.
        args: of the operation; "{key}" in a text becomes the system's name.
        right: gives what has to come, or None where only its effect is looked at.
        items: what the time is divided by for the cost of one.
        prepare: makes what a run uses up, and gives its name.
        sync: what is synced.
        larger_than: the key of the same work in a smaller size: who was slow there is left out here.
    """

    key: str
    title: str
    op: str
    systems: tuple[str, ...]
    place: Callable[[], str]
    args: tuple[Any, ...] = ()
    right: Callable[[], Any] | None = None
    items: int = 1
    prepare: Callable[[], str] | None = None
    sync: str = ""
    larger_than: str = ""


def works(place: Place) -> Iterator[Work]:
    """All of it, in the order of the report."""
    yield from _read(place)
    yield from _write(place)
    yield from _list(place)
    yield from _search(place)
    yield from _delete(place)
    yield from _refuse(place)


def _read(place: Place) -> Iterator[Work]:
    deep = "a/b/c/kib.txt"
    yield Work(
        "read.1k",
        "read 1 KiB of text, depth 4",
        "read",
        READERS,
        place.small,
        (deep,),
        lambda: trees.text_of(1024),
    )
    yield Work(
        "read.1m",
        "read 1 MiB of text",
        "read",
        READERS,
        place.small,
        ("mib.txt",),
        lambda: trees.text_of(MIB),
    )


def _write(place: Place) -> Iterator[Work]:
    synced = "file and folder synced by both"
    loose = "nothing synced by anybody"
    for key, title, op, args in (
        ("new", "write a new file of 1 KiB", "create", ("w/{key}", 1024)),
        ("over", "overwrite 1 KiB; fsjail keeps the old version", "overwrite", ("w/{key}/kib.txt", 1024)),
    ):
        yield Work(f"write.{key}", title, op, ("fsjail", "hand"), place.small, args, sync=synced)
        yield Work(f"write.{key}.loose", title, op, WRITERS, place.small, args, sync=loose)
    for key, size, label in (("10m", 10 * MIB, "10 MiB"), ("1g", 1 << 30, "1 GiB")):
        if size <= place.scale.most_bytes:
            yield Work(
                f"write.over.{key}",
                f"overwrite {label}; fsjail keeps the old version",
                "overwrite",
                ("fsjail", "hand"),
                place.small,
                (f"w/{{key}}/{key}.txt", size),
                sync=synced,
            )


def _list(place: Place) -> Iterator[Work]:
    for key, number in (("s", place.scale.flat[0]), ("l", place.scale.flat[1])):
        folder = f"flat{key}"
        yield Work(
            f"list.{key}",
            f"list a directory of {number:,}",
            "listing",
            (*READERS, "clock"),
            place.small,
            (folder,),
            lambda folder=folder: set(place.flat(folder)),
            items=number,
            larger_than="list.s" if key == "l" else "",
        )


def _search(place: Place) -> Iterator[Work]:
    before = ""
    for size, number in zip("sml", place.scale.files, strict=True):
        root = place.root_of(number)
        tree = place.tree_of(number)
        yield Work(
            f"walk.{size}",
            f"walk a tree of {number:,} files",
            "walk",
            ("fsjail", "bare", "rg", "git", "fsspec"),
            root,
            right=lambda tree=tree: sizes_of(tree()),
            items=number,
        )
        if size == "m":
            yield Work(
                "walk.first",
                f"the first walk of a new jail, {number:,} files",
                "first walk",
                ("fsjail", "bare"),
                root,
                right=lambda tree=tree: sizes_of(tree()),
                items=number,
            )
            yield Work(
                "grep.first",
                f"the first grep of a new jail, a literal in three files of {number:,}",
                "first grep",
                ("fsjail", "bare", "rg"),
                root,
                trees.NEEDLES["rare"],
                lambda tree=tree: tree().hits["rare"],
                items=number,
            )
        yield Work(
            f"glob.{size}",
            f"glob **/*.py over {number:,} files",
            "glob",
            (*GLOBBERS, "clock"),
            root,
            ("**/*.py",),
            lambda tree=tree: {path for path in tree().files if path.endswith(".py")},
            items=number,
            larger_than=before and f"glob.{before}",
        )
        for needle, told in (
            ("literal", "a literal, in one of 50 files"),
            ("rare", "a literal, in three files"),
            ("regex", "an expression, in one of 40 files"),
            ("nothing", "a literal that is nowhere"),
        ):
            if size == "m" and needle != "rare":
                continue
            yield Work(
                f"grep.{needle}.{size}",
                f"grep {told} of {number:,}",
                "grep",
                GREPPERS,
                root,
                trees.NEEDLES[needle],
                lambda tree=tree, needle=needle: tree().hits[needle],
                items=number,
                larger_than="grep.literal.s" if size == "s" else f"grep.{needle}.s",
            )
        before = size


def sizes_of(tree: trees.Tree) -> frozenset[int]:
    """What a walk may count: files, or files and directories, with what is denied or without."""
    readable = len(tree.readable())
    ways = sum(not trees.denied(f"{name}/x") for name in trees.folder_names(tree.folders))
    return frozenset({readable, readable + ways, len(tree.files), len(tree.files) + tree.folders})


def _delete(place: Place) -> Iterator[Work]:
    yield Work(
        "delete.file",
        "delete a file of 1 KiB",
        "delete",
        ("fsjail", "fsjail-none", "bare", "remove", *DELETERS[3:]),
        place.small,
        prepare=lambda: place.doomed(0),
        sync="synced where the name says so, and by fsjail",
    )
    number = place.scale.doomed
    yield Work(
        "delete.tree",
        f"delete a directory of {number:,} files, every name judged",
        "delete",
        DELETERS,
        place.small,
        prepare=lambda: place.doomed(number),
        items=number,
        sync="as above",
    )


def _refuse(place: Place) -> Iterator[Work]:
    yield Work(
        "refused.outside",
        "a refused read outside of the root",
        "refused",
        (*[key for key in READERS if key != "bare"], "clock"),
        place.small,
        ("../outside1.txt", "../outside2.txt"),
        right=lambda: 2,
        items=2,
    )
    yield Work(
        "refused.denied",
        "a refused read of a denied file",
        "refused",
        ("fsjail", "deepagents-rules", "pydantic-ai", "clock"),
        place.small,
        ("a/one.secret", "a/two.secret"),
        right=lambda: 2,
        items=2,
    )


def exists(root: str, name: str) -> bool:
    """Whether a name is there, a dangling link too."""
    return os.path.lexists(f"{root}/{name}")
