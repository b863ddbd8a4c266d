"""Whether the cost of one item stays flat: deeper, with more rules, more files, more threads."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from benchmarks import trees
from benchmarks.measure import Case, Effort, Way, timed
from benchmarks.systems import FIRST, Bare, Fsjail, Setup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.place import Place

DEPTHS = (1, 2, 4, 8, 16)
THREADS = (1, 2, 4, 8)
READS = 400


def cases(place: Place, effort: Effort) -> Iterator[Case]:
    """A case for each kind of growth; its ways are the points, of fsjail and of the standard library."""
    del effort
    setup = Setup(place.base, tuple(trees.patterns(50)), {})
    root = f"{place.base}/growth"
    os.makedirs(root, exist_ok=True)
    jail, bare = Fsjail(root, setup), Bare(root, setup)
    try:
        yield _depth(root, jail, bare)
        yield _threads(root, jail, bare)
    finally:
        jail.close()
    yield from _rules(place, root)
    yield from _files(place, setup)


def _point(system: Fsjail | Bare, value: int, run: Callable[[int], float], items: int = 1) -> Way:
    name, group = ("fsjail", "ours") if system.group == "ours" else ("os and pathlib", "plain")
    key = "fsjail" if group == "ours" else "bare"
    return Way(f"{key}@{value}", f"{name}, {value:,}", run, group=group, items=items)


def _depth(root: str, jail: Fsjail, bare: Bare) -> Case:
    ways = []
    for depth in DEPTHS:
        folder = "/".join(f"level{number}" for number in range(depth - 1))
        name = f"{folder}/file{depth}.txt".removeprefix("/")
        os.makedirs(f"{root}/{folder}", exist_ok=True)
        with open(f"{root}/{name}", "w", encoding="utf-8") as file:
            file.write(trees.text_of(1024))
        ways += [_point(one, depth, timed(lambda one=one, name=name: one.read(name))) for one in (jail, bare)]
    return Case("growth.depth", "read 1 KiB, by depth", ways)


def _threads(root: str, jail: Fsjail, bare: Bare) -> Case:
    names = [f"thread{number}.txt" for number in range(max(THREADS))]
    for name in names:
        with open(f"{root}/{name}", "w", encoding="utf-8") as file:
            file.write(trees.text_of(1024))

    def run(read: Callable[[str], str], threads: int) -> Callable[[int], float]:
        def work(name: str, start: threading.Barrier) -> None:
            start.wait()
            for _ in range(READS // threads):
                read(name)

        def once() -> float:
            start = threading.Barrier(threads + 1)
            all_of_them = [threading.Thread(target=work, args=(name, start)) for name in names[:threads]]
            for one in all_of_them:
                one.start()
            start.wait()
            begin = time.perf_counter()
            for one in all_of_them:
                one.join()
            return time.perf_counter() - begin

        return lambda number: sum(once() for _ in range(number))

    ways = [
        _point(one, threads, run(one.read, threads), READS) for threads in THREADS for one in (jail, bare)
    ]
    return Case("growth.threads", f"{READS} reads of 1 KiB, by threads", ways)


def _rules(place: Place, root: str) -> Iterator[Case]:
    del root
    tree = place.tree(place.scale.files[0])
    name = next(path for path in tree.files if not trees.denied(path))
    reads, walks = [], []
    jails = []
    for number in place.scale.patterns:
        jail = Fsjail(tree.root, Setup(place.base, tuple(trees.patterns(number)), {}))
        jails.append(jail)
        reads.append(_point(jail, number, timed(lambda jail=jail: jail.read(name))))
        walks.append(_point(jail, number, _first_walk(jail), len(tree.files)))
    yield Case("growth.rules.read", "read a file, by rules", reads)
    yield Case("growth.rules.walk", f"first walk of a jail over {len(tree.files):,} files, by rules", walks)
    for jail in jails:
        jail.close()


def _first_walk(jail: Fsjail) -> Callable[[int], float]:
    """A walk that remembers no name: every rule has to be asked."""
    return lambda number: jail.time(f"{FIRST}walk", (), number)


def _files(place: Place, setup: Setup) -> Iterator[Case]:
    jails = []
    walks, globs, greps = [], [], []
    for number in place.scale.growth:
        tree = place.tree(number, empty=True)
        systems = Fsjail(tree.root, setup), Bare(tree.root, setup)
        jails.append(systems[0])
        for one in systems:
            walks.append(_point(one, number, timed(one.walk), number))
            globs.append(_point(one, number, timed(lambda one=one: one.glob("**/*.py")), number))
    for number in (*place.scale.growth[:1], *place.scale.files):
        tree = place.tree(number)
        systems = Fsjail(tree.root, setup), Bare(tree.root, setup)
        jails.append(systems[0])
        for one in systems:
            greps.append(_point(one, number, timed(lambda one=one: one.grep(trees.RARE, True)), number))
    yield Case("growth.files.walk", "walk, by files", walks)
    yield Case("growth.files.glob", "glob **/*.py, by files", globs)
    yield Case("growth.files.grep", "grep a rare literal, by files", greps)
    for jail in jails:
        jail.close()
