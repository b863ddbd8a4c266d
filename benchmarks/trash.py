"""What keeping costs: deleting and overwriting through a jail, against what people use instead.

    make bench                    # all but the gigabyte
    .venv/bin/python benchmarks/trash.py --gigabyte

Each line's ways are measured in turn in one run, so that a slow moment of the machine meets them
all; the medians are printed, and their ratio to the first way. Durable ways sync what they change.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from fsjail import Jail, Policy, Rules

Way = Callable[[Path], None]
OPEN = Policy(write=Rules(allow=["*"]))


def sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_by_hand(path: Path, data: bytes) -> None:
    """Temp file + rename, synced: an atomic write that loses the old version."""
    fresh = path.with_suffix(".tmp")
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    sync_folder(path.parent)


def trees(root: Path, files: int) -> Path:
    tree = root / f"tree{time.monotonic_ns()}"
    for number in range(files):
        folder = tree / f"d{number // 100}"
        if number % 100 == 0:
            folder.mkdir(parents=True)
        (folder / f"f{number}").touch()
    return tree


def one_file(root: Path) -> Path:
    path = root / f"f{time.monotonic_ns()}"
    path.write_bytes(b"x" * 1024)
    return path


def measure(
    title: str, make: Callable[[], Path], ways: dict[str, Way], rounds: int, limit: float | None
) -> None:
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            path = make()
            os.sync()
            begin = time.perf_counter()
            way(path)
            times[name].append(time.perf_counter() - begin)
    first = statistics.median(next(iter(times.values())))
    print(f"\n{title}")
    for name, taken in times.items():
        middle = statistics.median(taken)
        spread = f"{min(taken) * 1e3:.2f}-{max(taken) * 1e3:.2f}"
        goal = f"   goal {limit}" if limit is not None and name == "fsjail" else ""
        print(f"  {name:<34}{middle * 1e3:>10.2f} ms  ({spread}){middle / first:>8.2f} x{goal}")


def peers() -> dict[str, Way]:
    found: dict[str, Way] = {}
    try:
        from send2trash import send2trash  # noqa: PLC0415 - optional
    except ImportError:
        print("send2trash is not installed: left out")
    else:
        found["send2trash"] = lambda path: send2trash(str(path))
    put = Path(sys.executable).with_name("trash-put")
    if put.exists():
        found["trash-put (a process)"] = lambda path: _quiet([str(put), str(path)])
    else:
        print("trash-cli is not installed: left out")
    return found


def _quiet(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabyte", action="store_true", help="overwrite 1 GiB too (needs 3 GiB of disk)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fsjail-bench-") as base:
        root = Path(base, "root")
        root.mkdir()
        os.environ["XDG_DATA_HOME"] = str(Path(base, "data"))
        with (
            Jail(root, OPEN, state=Path(base, "state")) as jail,
            Jail(root, OPEN, state=Path(base, "state2"), durability="none") as loose,
        ):
            name = root.__class__.relative_to
            others = peers()
            measure(
                "delete a file of 1 KiB",
                lambda: one_file(root),
                {
                    "os.remove": os.remove,
                    "os.remove, folder synced": lambda path: (path.unlink(), sync_folder(path.parent))[0],
                    "fsjail, durability none": lambda path: _done(loose.delete(name(path, root))),
                    "fsjail": lambda path: _done(jail.delete(name(path, root))),
                    **others,
                },
                20,
                None,
            )
            measure(
                "delete a directory of 10,000 files, every name judged",
                lambda: trees(root, 10_000),
                {
                    "shutil.rmtree": shutil.rmtree,
                    "fsjail": lambda path: _done(jail.delete(name(path, root))),
                    **others,
                },
                5,
                0.5,
            )
            sizes = [("1 KiB", 1024, 40, 2.5), ("10 MiB", 10 << 20, 7, 1.2)]
            if options.gigabyte:
                sizes.append(("1 GiB", 1 << 30, 2, 1.2))
            target = root / "target"
            for title, size, rounds, goal in sizes:
                data = os.urandom(1024) * (size // 1024)
                target.write_bytes(data)
                measure(
                    f"overwrite {title}",
                    lambda: target,
                    {
                        "temp file + rename, synced": lambda path, data=data: replace_by_hand(path, data),
                        "fsjail": lambda _, data=data: _done(jail.write_bytes("target", data)),
                    },
                    rounds,
                    goal,
                )
                jail.trash.purge(older_than_days=0)


def _done(_: object) -> None:
    """Take a change for nothing: ways give None."""


if __name__ == "__main__":
    main()
