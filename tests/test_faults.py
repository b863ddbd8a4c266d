"""No fault loses anything: killed or failing at each system call, and in a crowd of processes.

``_faults.py`` does the breaking and the looking; here is what is asked of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from _faults import CONTROLS, ERRORS, OPERATIONS
from fsjail import Jail, Policy, Rules

OPEN = Policy(write=Rules(allow=["*"]))
HERE = Path(__file__).parent
NEAR = [name for name, operation in OPERATIONS.items() if not operation.mounted]
ACROSS = [name for name, operation in OPERATIONS.items() if operation.mounted]
INSIDE = ["INT", "EIO at any", "EIO+", "ENOSPC+"]  # what only the shim can do


def broken(
    driver: str, operations: list[str], faults: list[str], folder: Path, want: int = 0
) -> list[dict[str, Any]]:
    """Run a plan in a process of its own; skips the test where this machine cannot."""
    plan = {"driver": driver, "operations": operations, "faults": faults, "want": want}
    done = subprocess.run(
        [sys.executable, HERE / "_faults.py", folder],
        input=json.dumps(plan),
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,  # a lock that nobody lets go of
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    if "skip" in lines[0]:
        pytest.skip(lines[0]["skip"])
    return lines


def assert_sound(lines: list[dict[str, Any]], at_least: int) -> None:
    bad = [line for line in lines if line["problems"]]
    print(len(lines), "points:", dict(Counter(f"{line['fault']} {line['outcome']}" for line in lines)))
    assert not bad, f"{len(bad)} of {len(lines)} points:\n" + "\n".join(map(json.dumps, bad[:20]))
    assert len(lines) >= at_least
    if any(line["fault"] == "KILL" for line in lines):
        killed = [line for line in lines if line["outcome"] == "killed"]
        assert len(killed) > 0.95 * sum(line["fault"] == "KILL" for line in lines)
    # Python calls again after EINTR, and so do our own calls: nobody hears of it. What the kernel
    # never interrupts (unlink, rename by os) is left out.
    retried = {"write", "fsync", "openat", "openat2", "flock", "renameat2", "syncfs", "ftruncate", "fchmod"}
    retried |= {"_openat2", "_renameat2", "_syncfs"}
    heard = [line for line in lines if line["fault"] == "EINTR" and line["call"] in retried]
    assert not [line for line in heard if line["outcome"] != "done"]


@pytest.mark.parametrize("driver", ["shim", "strace"])
@pytest.mark.parametrize(("operations", "want"), [(NEAR, 90), (ACROSS, 40)], ids=["near", "across"])
def test_a_fault_at_some_calls_loses_nothing(driver, operations, want, tmp_path):
    faults = ["KILL", *ERRORS, *(INSIDE if driver == "shim" else [])]
    assert_sound(broken(driver, operations, faults, tmp_path / "w", want), want)


@pytest.mark.soak
@pytest.mark.parametrize(("operations", "at_least"), [(NEAR, 1500), (ACROSS, 800)], ids=["near", "across"])
@pytest.mark.parametrize("driver", ["shim", "strace"])
def test_a_kill_at_every_call_loses_nothing(driver, operations, at_least, tmp_path):
    assert_sound(broken(driver, operations, ["KILL"], tmp_path / "w"), at_least)


@pytest.mark.soak
@pytest.mark.parametrize("operations", [NEAR, ACROSS], ids=["near", "across"])
@pytest.mark.parametrize("driver", ["shim", "strace"])
def test_an_error_at_many_calls_loses_nothing(driver, operations, tmp_path):
    faults = [*ERRORS, *(INSIDE if driver == "shim" else [])]
    assert_sound(broken(driver, operations, faults, tmp_path / "w", 1500), 1500)


@pytest.mark.parametrize("driver", ["shim", "strace"])
def test_the_harness_catches_what_loses(driver, tmp_path):
    """Plain calls in the place of the jail's: what every one of them loses must be seen."""
    # The shim does not see what the built-in open calls.
    names = [name for name in CONTROLS if (name, driver) != ("plain open", "shim")]
    lines = broken(driver, names, ["KILL"], tmp_path / "w")
    caught = {
        line["operation"] for line in lines if any(text.startswith("lost") for text in line["problems"])
    }
    assert caught == set(names)


# ── crowds ─────────────────────────────────────────────────────────────────────────────────────


def crowd(root: Path, state: Path, deleters: int, rounds: int, writers: int) -> None:
    """Some delete files of one name, each its own folder's; some overwrite one file; then all is counted."""
    (root / "shared").write_text("first")
    for who in range(deleters):
        (root / str(who)).mkdir()
    pids = []
    for who in range(deleters + writers):
        pid = os.fork()
        if pid == 0:
            code = 1
            with suppress(BaseException), Jail(root, OPEN, state=state, durability="none") as jail:
                for number in range(rounds):
                    if who < deleters:
                        name = root / str(who) / "same"
                        name.write_text(f"{who} {number}")
                        jail.delete(f"{who}/same")
                    else:
                        jail.write_text("shared", f"{who} {number}")
                code = 0
            os._exit(code)
        pids.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * len(pids)
    trash = root / ".fsjail" / "Trash"
    texts = Counter((trash / "files" / name).read_text() for name in os.listdir(trash / "files"))
    wanted = {f"{who} {number}" for who in range(deleters + writers) for number in range(rounds)}
    wanted = (wanted | {"first"}) - {(root / "shared").read_text()}
    assert wanted - set(texts) == set(), "lost"
    assert all(texts[f"{who} {number}"] == 1 for who in range(deleters) for number in range(rounds))
    with Jail(root, OPEN, state=state) as jail:
        items = jail.trash.items()
        assert {item.why for item in items} == {"deleted", "overwritten"}
        assert sum(item.path.endswith("/same") for item in items) == deleters * rounds
        jail.trash.recover()
        assert jail.audit.verify()
    assert os.listdir(root / ".fsjail" / "stage") == []
    names = {name.removesuffix(".trashinfo") for name in os.listdir(trash / "info")}
    assert names == set(os.listdir(trash / "files"))


def test_a_crowd_loses_nothing(base, tmp_path):
    crowd(base / "root", tmp_path / "state", 8, 60, 4)


@pytest.mark.soak
def test_a_large_crowd_loses_nothing(base, tmp_path):
    crowd(base / "root", tmp_path / "state", 8, 150, 4)
