"""The watch: what goes around the jail is found, what a jail does is never told, and no loss is silent.

Attackers are second processes with plain Python. Each attack is first shown to pass unseen without a watch.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter, deque
from pathlib import Path

import pytest

import fsjail
from fsjail import Jail, Limits, Policy, Rules, TrashError, _home
from fsjail._ledger import Ledger
from fsjail._seen import Seen
from fsjail._underway import NAME, UnderWay
from fsjail._watched import CHANGES, OPENED, Reader
from fsjail.watch import Watch

SOURCE = str(Path(fsjail.__file__).parent.parent)
QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")
PATIENCE = 30.0  # seconds; nothing here takes as long unless it is broken
NOT_FINDINGS = {"polling", "blind", "gap"}

pytestmark = pytest.mark.skipif(not QUEUE.exists(), reason="there is no inotify here")


class Eyes:
    """What a watch told."""

    def __init__(self):
        self.events = []
        self._came = threading.Condition()

    def __call__(self, event):
        with self._came:
            self.events.append(event)
            self._came.notify_all()

    def all(self):
        """Every finding, as kind, operation and path."""
        return [(e.extra["kind"], e.op, e.path) for e in self.events if e.extra["kind"] not in NOT_FINDINGS]

    def find(self, kind, path=None, op=None):
        return [
            event
            for event in self.events
            if event.extra["kind"] == kind
            and (path is None or event.path == path)
            and (op is None or event.op == op)
        ]

    def wait(self, kind, path=None, op=None):
        """Wait for a finding; give its event."""
        with self._came:
            if not self._came.wait_for(lambda: self.find(kind, path, op), PATIENCE):
                pytest.fail(f"no {kind} of {path}; told was {self.all()[:20]}")
            return self.find(kind, path, op)[0]

    def count(self, kind="unexplained"):
        """How many findings of a kind there are, with those that were only counted."""
        return sum(1 + event.extra.get("more", 0) for event in self.find(kind))


@pytest.fixture
def eyes(monkeypatch):
    # What is looked at once a second elsewhere.
    monkeypatch.setattr("fsjail._patrol._TICK_SECONDS", 0.1)
    monkeypatch.setattr("fsjail._patrol._OFTEN", 0.1)
    return Eyes()


@pytest.fixture
def root(base) -> Path:
    return base / "root"


@pytest.fixture
def jail(base):
    policy = Policy(write=Rules(allow=["*"], deny=["locked/"]), read=Rules(deny=["private/"]))
    with Jail(base / "root", policy, state=base / "state", durability="none") as jail:
        yield jail


class Attacker:
    """Another process with plain Python; one for all tests: to start it takes longer than most attacks."""

    LOOP = """
import json, os, shutil, sys, time, traceback
for line in sys.stdin:
    code, arguments, folder = json.loads(line)
    try:
        os.chdir(folder)
        exec(code, {"os": os, "shutil": shutil, "time": time, "arguments": arguments})
        print(flush=True)
    except BaseException:
        print(json.dumps(traceback.format_exc()), flush=True)
"""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-c", self.LOOP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def do(self, code, arguments, folder):
        self._process.stdin.write(json.dumps([code, arguments, folder]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        assert answer == "", json.loads(answer)

    def end(self):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


@pytest.fixture(scope="module", autouse=True)
def attacker():
    Attacker.the = Attacker()
    yield
    Attacker.the.end()


def raw(code, *arguments, cwd):
    """Run plain Python in another process."""
    Attacker.the.do(textwrap.dedent(code), [str(each) for each in arguments], str(cwd))


def until(condition, what):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.005)


# ── every kind of change in the root ─────────────────────────────────────────────────────────────

PREPARED = {
    "root/src/deep/": None,
    "root/src/a": "content",
    "root/private/p": "p",
    "root/locked/k": "k",
    "root/conf/private/p": "p",
    "root/.env": "TOKEN=1",
    "outside/secret": "SECRET",
    "outside/full/.env": "TOKEN=2",
    "outside/full/f": "f",
}


def prepare(base):
    for name, content in PREPARED.items():
        place = base / name
        (place if content is None else place.parent).mkdir(parents=True, exist_ok=True)
        if content is not None:
            place.write_text(content)
    os.symlink("src", base / "root/way")


WRITE = 'open("{0}", "{1}").write("evil")'
ATTACKS = {
    "write": (WRITE.format("src/a", "w"), [("unexplained", "write", "src/a")]),
    "append": (WRITE.format("src/a", "a"), [("unexplained", "write", "src/a")]),
    "create": (WRITE.format("src/new", "x"), [("unexplained", "create", "src/new")]),
    "delete": ('os.unlink("src/a")', [("unexplained", "delete", "src/a")]),
    "chmod": ('os.chmod("src/a", 0o777)', [("unexplained", "attributes", "src/a")]),
    "times": ('os.utime("src/a", (1, 1))', [("unexplained", "attributes", "src/a")]),
    "mkdir": ('os.mkdir("src/d")', [("unexplained", "create", "src/d")]),
    "rmdir": ('os.rmdir("src/deep")', [("unexplained", "delete", "src/deep")]),
    "rename": (
        'os.rename("src/a", "src/b")',
        [("unexplained", "delete", "src/a"), ("unexplained", "create", "src/b")],
    ),
    "replace": (
        'open("../outside/n", "w").write("evil!!"); os.rename("../outside/n", "src/a")',
        [("unexplained", "replace", "src/a")],
    ),
    "through a link inside": (WRITE.format("way/a", "w"), [("unexplained", "write", "src/a")]),
    "newline": (WRITE.format("src/two\\nlines", "w"), [("unexplained", "create", "src/two\nlines")]),
    "not UTF-8": ('open(b"src/\\xff\\xfe", "w").write("x")', [("unexplained", "create", "src/\udcff\udcfe")]),
    "fifo": ('os.mkfifo("src/fifo")', [("unexplained", "create", "src/fifo")]),
    "secret": (WRITE.format(".env", "w"), [("denied change", "write", ".env")]),
    "secret deleted": ('os.unlink(".env")', [("denied change", "delete", ".env")]),
    "read-denied": (WRITE.format("private/p", "a"), [("denied change", "write", "private/p")]),
    "read-denied, new": (WRITE.format("private/q", "x"), [("denied change", "create", "private/q")]),
    "write-denied": (WRITE.format("locked/k", "a"), [("denied change", "write", "locked/k")]),
    "own rules": (WRITE.format("fsjail.toml", "w"), [("denied change", "create", "fsjail.toml")]),
    "denied beneath what is moved": (
        'os.rename("conf", "konf")',
        [
            ("unexplained", "delete", "conf"),
            ("denied change", "delete", "conf/private"),
            ("denied change", "delete", "conf/private/p"),
            ("unexplained", "create", "konf"),
            ("denied change", "create", "konf/private"),
            ("denied change", "create", "konf/private/p"),
        ],
    ),
    "denied beneath what is moved out": (
        'os.rename("conf", "../outside/conf")',
        [
            ("unexplained", "delete", "conf"),
            ("denied change", "delete", "conf/private"),
            ("denied change", "delete", "conf/private/p"),
        ],
    ),
    "moved in": (
        'os.rename("../outside/full", "full")',
        [
            ("unexplained", "create", "full"),
            ("denied change", "create", "full/.env"),
            ("unexplained", "create", "full/f"),
        ],
    ),
    "link outside": ('os.symlink("../../outside/secret", "src/l")', [("link", "create", "src/l")]),
    "link outside, absolute": ('os.symlink("/etc/passwd", "src/l")', [("link", "create", "src/l")]),
    "link outside, dangling": ('os.symlink("/no/such/thing", "src/l")', [("link", "create", "src/l")]),
    "link that leads outside by another": (
        'os.symlink("../../outside", "src/l"); os.symlink("src/l/secret", "m")',
        [("link", "create", "src/l"), ("link", "create", "m")],
    ),
    "link outside in the place of a file": (
        'os.symlink("/etc/passwd", "l"); os.rename("l", "src/a")',
        [("link", "create", "l"), ("link", "replace", "src/a")],
    ),
    "link inside": ('os.symlink("../src/a", "src/l")', [("unexplained", "create", "src/l")]),
    "link inside, absolute": (
        'os.symlink(os.path.abspath("src/a"), "src/l")',
        [("unexplained", "create", "src/l")],
    ),
    "hard link outside": ('os.link("../outside/secret", "src/h")', [("hard link", "create", "src/h")]),
    "hard link inside": ('os.link("src/a", "src/h")', [("unexplained", "create", "src/h")]),
    "denied hard link outside": (
        'os.link("../outside/secret", "locked/h")',
        [("hard link", "create", "locked/h"), ("denied change", "create", "locked/h")],
    ),
}
# What a name held only for an instant may be told under what it was when somebody looked.
HASTY = {"link outside in the place of a file"}


def test_unseen_without_a_watch(tmp_path):
    """Each attack passes: it raises nothing, something is changed, and the log does not know of it."""
    for number, (code, _) in enumerate(ATTACKS.values()):
        base = tmp_path / str(number)
        prepare(base)
        with Jail(base / "root", state=base / "state") as jail:
            before = picture(base)
            raw(code, cwd=base / "root")
            assert picture(base) != before, code
            assert list(jail.audit.events()) == []


def picture(folder):
    found = {}
    for here, folders, files in os.walk(folder):
        for each in [*folders, *files]:
            path = os.path.join(here, each)
            st = os.lstat(path)
            found[path] = (st.st_ino, st.st_mode, st.st_size, st.st_mtime_ns, st.st_nlink)
    return found


@pytest.mark.parametrize("name", ATTACKS)
def test_found(name, jail, root, eyes):
    prepare(root.parent)
    attack, expected = ATTACKS[name]
    with jail.watch(eyes) as watch:
        assert watch.polling is False
        raw(attack, cwd=root)
        if name not in HASTY:
            for kind, op, path in expected:
                eyes.wait(kind, path, op)
    told = [one for one in eyes.all() if name not in HASTY or one[1] != "delete"]
    if name in HASTY:
        assert [one for one in told if one[2] == "src/a"] == expected[-1:]
    else:
        assert Counter(told) == Counter(expected), "each once, and nothing else"
    logged = [event for event in jail.audit.events() if event.layer == "watch"]
    assert [event.seq for event in logged] == [event.seq for event in eyes.events]
    for event in logged:
        assert event.decision == ("error" if event.extra["kind"] == "unexplained" else "deny")
        assert event.why.startswith("watch: ") or event.extra["kind"] == "denied change"
        assert event.op not in {"write", "delete"} or event.decision != "allow", (
            "undo must not take it for ours"
        )
    assert jail.audit.verify()


POLLED = [
    name
    for name in ATTACKS
    # Between two looks a name may have come and gone, and what is beneath what was moved is all new.
    if name not in {"denied beneath what is moved", "link outside in the place of a file"}
]


@pytest.mark.parametrize("name", POLLED)
def test_found_by_looking(name, jail, root, eyes):
    """Where there are no notices; at the end of the block everything is looked at."""
    prepare(root.parent)
    attack, expected = ATTACKS[name]
    with jail.watch(eyes, polling=True) as watch:
        assert watch.polling is True
        raw(attack, cwd=root)
    told = Counter(eyes.all())
    for kind, op, path in expected:
        if name == "denied beneath what is moved out" and kind == "denied change":
            continue
        # Times that were set look like a write.
        assert told[kind, "write" if name == "times" else op, path] == 1, eyes.all()
    assert eyes.find("polling")[0].extra["reason"] == "asked for"


def test_rules_and_targets_are_named(jail, root, eyes):
    with jail.watch(eyes):
        raw('os.symlink("/etc/passwd", "l"); open(".env", "w"); os.link("../outside/secret", "h")', cwd=root)
        assert eyes.wait("link", "l").to == "/etc/passwd"
        denied = eyes.wait("denied change", ".env")
        hard = eyes.wait("hard link", "h")
    assert denied.why == "preset secrets[0]"
    assert denied.rule["pattern"] == ".env"
    assert (hard.extra["links"], hard.extra["inside"]) == (2, 1)


def test_unexplained_can_be_switched_off(jail, root, eyes):
    with jail.watch(eyes, unexplained=False):
        raw('open("a", "w"); os.chmod(".", 0o700); open(".env", "w"); os.symlink("/etc", "l")', cwd=root)
    assert set(eyes.all()) == {("denied change", "create", ".env"), ("link", "create", "l")}


def test_what_came_and_went(jail, root, eyes):
    with jail.watch(eyes):
        raw('open("a", "w").close(); os.unlink("a")', cwd=root)
    assert {path for _, _, path in eyes.all()} == {"a"}
    assert eyes.all()[0] == ("unexplained", "create", "a")


def test_one_write_is_told_once(jail, root, eyes):
    """A file that is written in many steps, slower than the watch can tell."""
    with jail.watch(eyes):
        raw(
            """
            with open("slow", "w", buffering=1) as file:
                for number in range(20):
                    file.write(f"{number}\\n")
                    time.sleep(0.01)
            """,
            cwd=root,
        )
    assert eyes.all() == [("unexplained", "create", "slow")]


def test_the_last_instant_counts(jail, root, eyes):
    for number in range(10):
        with jail.watch(eyes):
            (root / f"n{number}").write_text("x")
    assert eyes.all() == [("unexplained", "create", f"n{number}") for number in range(10)]


# ── what a jail does is never told ───────────────────────────────────────────────────────────────


def work(jail):
    """Every operation that changes something, also those that fail half way."""
    jail.write_text("a", "one")
    jail.write_text("a", "two")
    jail.append_text("a", "more")
    jail.append_text("fresh", "more")
    jail.edit("a", "two", "three")
    for mode in ("w", "a", "r+", "w+"):
        with jail.open("a", mode) as file:
            file.write("streamed")
    with jail.open("x", "x") as file:
        file.write("x" * 100_000)
    jail.mkdir("p/q/r", parents=True)
    jail.write_text("p/q/r/s/t", "deep", parents=True)
    for number in range(20):
        jail.write_text(f"many/{number}/f", "x", parents=True)
    jail.copy("a", "copy")
    jail.copy("a", "fresh", overwrite=True)
    jail.copy("many", "many2")
    jail.copy("p", "many2", overwrite=True)
    jail.move("copy", "moved")
    jail.move("moved", "a", overwrite=True)
    jail.move("many2", "many3")
    jail.move("p", "many3", overwrite=True)
    jail.write_text("many3/q/n", "in what was moved")
    jail.delete("many3/q/n")
    jail.undo()
    jail.delete("many/3")
    jail.trash.restore(jail.trash.items()[0].id)
    gone = jail.delete("many")
    jail.undo(gone)
    jail.undo(jail.delete("x"))
    jail.trash.restore(jail.trash.items()[-1].id, to="back/from/trash", overwrite=True)
    jail.trash.restore(jail.trash.items()[-1].id, to="a", overwrite=True)
    jail.trash.purge(keep_bytes=10)
    jail.trash.recover()
    jail.delete("link")
    jail.move("pipe", "pipe2")
    jail.delete("pipe2")
    for call in (
        lambda: jail.write_text("a/b/c", "x", parents=True),
        lambda: jail.write_text("locked/x", "x", parents=True),
        lambda: jail.copy("many", "p2/../../out"),
        lambda: jail.copy("big", "many", overwrite=True),
        lambda: jail.move("nothing", "a", overwrite=True),
    ):
        with pytest.raises((OSError, ValueError)):
            call()


@pytest.mark.parametrize("how", ["notices", "polling"])
@pytest.mark.parametrize("trash", ["in the root", "elsewhere"])
@pytest.mark.parametrize("durability", ["full", "none"])
def test_the_jail_itself_is_not_told(how, trash, durability, base, root, eyes):
    policy = Policy(write=Rules(allow=["*"], deny=["locked/"]))
    location = base / "trash" if trash == "elsewhere" else None
    limits = Limits(max_write_bytes=200_000)
    os.symlink("a", root / "link")
    os.mkfifo(root / "pipe")
    (root / "big").mkdir()
    (root / "big" / "file").write_bytes(
        b"x" * 300_000
    )  # cannot be copied: what was to be replaced comes back
    with Jail(
        root, policy, state=base / "state", durability=durability, trash_location=location, limits=limits
    ) as jail:
        with jail.watch(eyes, polling=how == "polling"):
            work(jail)
        assert eyes.all() == []


def test_a_record_that_comes_late_explains_too(jail, root, eyes, monkeypatch):
    """The disk is busy: between the act and its record lies half a second. No window of time is as long."""
    write = jail.audit.record

    def late(*arguments, **fields):
        time.sleep(0.5)
        return write(*arguments, **fields)

    with Jail(root, jail.policy, state=jail.audit.folder) as watcher, watcher.watch(eyes):
        monkeypatch.setattr(jail.audit, "record", late)
        jail.write_text("late", "x")
        jail.move("late", "later")
    assert eyes.all() == []


def test_waits_as_long_as_a_change_is_under_way(jail, root, eyes):
    """And no longer: also where the process that makes it is killed."""
    with jail.watch(eyes):
        busy = subprocess.Popen(
            [
                sys.executable,
                "-c",
                (
                    "import sys, time\nfrom fsjail._underway import UnderWay\n"
                    "print(UnderWay(sys.argv[1]).begin(), flush=True)\ntime.sleep(600)"
                ),
                jail.audit.folder,
            ],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": SOURCE},
        )
        try:
            assert int(busy.stdout.readline()) > 0
            os.mkdir(root / "made")
            (root / ".env").write_text("x")  # written into, which no jail does: needs no waiting
            eyes.wait("denied change", ".env")
            time.sleep(0.3)
            assert eyes.find("unexplained", "made") == []
        finally:
            busy.kill()
            busy.communicate()
        eyes.wait("unexplained", "made")


WORKER = """
    import random, sys
    from fsjail import Jail, Policy
    from fsjail._errors import JailError
    root, state, seed, count = sys.argv[1:]
    dice, changes = random.Random(int(seed)), []
    with Jail(root, Policy.workspace(), state=state, durability="none") as jail:
        def name():
            folders = ["", "a/", "a/b/", f"c{seed}/d/"]
            return dice.choice(folders) + dice.choice("fghij") + dice.choice(["", seed])
        def folder():
            return dice.choice("akl") + dice.choice(["", seed])
        calls = [
            lambda: changes.append(jail.write_text(name(), "x" * dice.randrange(999), parents=True)),
            lambda: changes.append(jail.write_text(name(), "y", parents=True)),
            lambda: jail.append_text(name(), "more", parents=True),
            lambda: jail.edit(name(), "x", "y"),
            lambda: jail.move(name(), name(), overwrite=True),
            lambda: jail.move(folder(), folder(), overwrite=True),
            lambda: jail.copy(name(), name(), overwrite=True),
            lambda: jail.copy(folder(), folder(), overwrite=True),
            lambda: jail.delete(name()),
            lambda: jail.delete(folder()),
            lambda: jail.undo(changes.pop()),
            lambda: jail.undo(),
            lambda: jail.mkdir(f"p{seed}/{dice.randrange(9)}/q", parents=True),
            # Not the newest: one that another jail is just putting there would fail that jail's call.
            lambda: jail.trash.restore(dice.choice(jail.trash.items()[20:]).id, overwrite=dice.random() < 0.5)
        ]
        done = 0
        for _ in range(int(count)):
            try:
                dice.choice(calls)()
                done += 1
            except (OSError, ValueError, IndexError, JailError):
                pass
    print(done)
"""


def workers(root, state, count, many):
    return [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WORKER), str(root), str(state), str(seed), str(count)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": SOURCE},
        )
        for seed in range(1, many + 1)
    ]


@pytest.mark.parametrize("many", [1, 3])
def test_one_raw_change_among_hundreds_of_a_jail(base, root, eyes, many):
    """Jails of other processes work hard: nothing of it is told, and of the raw changes every one."""
    with Jail(root, Policy.workspace(), state=base / "state") as jail, jail.watch(eyes):
        running = workers(root, base / "state", 600 // many, many)
        planted = []
        while any(worker.poll() is None for worker in running):
            planted.append(f"raw{len(planted)}")
            raw("open(arguments[0], 'x').write('x')", planted[-1], cwd=root)
            time.sleep(0.05)
        done = [int(worker.communicate()[0]) for worker in running]
    assert min(done) > 50
    assert eyes.all() == [("unexplained", "create", name) for name in planted]
    assert len(planted) > 2


@pytest.mark.soak
def test_many_jails_at_once_soak(base, root, eyes):
    with Jail(root, Policy.workspace(), state=base / "state") as jail, jail.watch(eyes):
        for worker in workers(root, base / "state", 6000, 4):
            worker.communicate()
    assert eyes.all() == []


def overwrite(path):
    with path.open("r+b") as file:
        file.write(b"evil")


def overwrite_and_set_times_back(path):
    st = path.stat()
    overwrite(path)
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))


def replace(path):
    Path(f"{path}~").write_text("evil")
    os.rename(f"{path}~", path)


RIGHT_AFTER = [
    ("write", overwrite),
    ("write", overwrite_and_set_times_back),
    ("replace", replace),
    ("delete", Path.unlink),
    ("attributes", lambda path: path.chmod(0o777)),
]


@pytest.mark.parametrize(("op", "change"), RIGHT_AFTER)
@pytest.mark.parametrize("before", ["create", "overwrite"])
def test_a_raw_change_right_after_the_jails_own(jail, root, eyes, op, change, before):
    """The record of the jail must not cover what somebody does to the same name a moment later."""
    with jail.watch(eyes):
        for number in range(25):
            if before == "overwrite":
                jail.write_text(f"f{number}", "old")
            jail.write_text(f"f{number}", "good")
            change(root / f"f{number}")
    told = Counter((op, path) for _, op, path in eyes.all() if not path.endswith("~"))
    assert Counter(path for path, many in told.items() if path[0] == op) == Counter(
        (op, f"f{number}") for number in range(25)
    )
    # That the times were set back is a change of its own.
    others = {told_ for told_, _ in told} - {op}
    assert others <= ({"attributes"} if change is overwrite_and_set_times_back else set()), told
    assert max(told.values()) == 1


class Paced(deque):
    """The notices for a slow watch: it is given so many of them, and takes so many in a turn."""

    given = pace = 1 << 30

    @classmethod
    def of(cls, watch):
        patrol = watch._patrol
        until(lambda: not patrol.reader._rung, "the bell rings on")
        patrol.reader._due = due = cls(patrol.reader._due)
        due.reader, due.doubts = patrol.reader, patrol._doubts
        return due

    def __len__(self):
        return max(0, min(self.given, self.pace, super().__len__()))

    def __bool__(self):
        return super().__len__() > 0

    def __iter__(self):
        # Else a list of it takes the length, which is Python here, between iterator and first notice.
        return iter([self[index] for index in range(super().__len__())])

    def popleft(self):
        self.given -= 1
        self.reader.wake()  # there are more
        return super().popleft()

    def has_bell(self):
        return any(notice.watch == self.reader.bell for notice in self)

    def give(self, many):
        time.sleep(0.003)  # for the thread that reads
        self.given = min(many, super().__len__())
        self.reader.wake()
        until(lambda: not self.given, "they are not taken")
        time.sleep(0.003)  # for a look at what they say

    @contextlib.contextmanager
    def slow(self, pace):
        """What happens in the block is seen when it is over, but for what is given before."""
        self.given, self.pace = 0, pace
        yield
        time.sleep(0.003)
        self.given = 1 << 30
        self.reader.wake()
        until(lambda: not self and not self.doubts, "not all is settled")
        self.pace = 1 << 30


BEFORE = {
    "create": [("write_text", "good")],
    "overwrite": [("write_text", "old"), ("write_text", "good")],
    "append": [("write_text", "old"), ("append_text", "good")],
    "delete": [("write_text", "old"), ("delete",), ("write_text", "good")],
    "twice": [("write_text", "old"), ("delete",), ("write_text", "old"), ("delete",), ("write_text", "good")],
}


@pytest.mark.parametrize("pace", [1, 3])
@pytest.mark.parametrize(("op", "change"), RIGHT_AFTER)
@pytest.mark.parametrize("before", BEFORE)
def test_a_raw_change_right_after_whatever_the_pace(jail, root, eyes, op, change, before, pace):
    """Late notices of what was seen already are no change of their own, and no record explains too much."""
    with jail.watch(eyes) as watch:
        due = Paced.of(watch)
        for first in range(10):
            with due.slow(pace):
                for call, *content in BEFORE[before]:
                    getattr(jail, call)(f"f{first}", *content)
                if before == "delete":
                    until(due.has_bell, "the record is not read")
                due.give(first)
                change(root / f"f{first}")
    told = Counter(found for found in eyes.all() if not found[2].endswith("~"))
    expected = Counter(("unexplained", op, f"f{first}") for first in range(10))
    if change is overwrite_and_set_times_back:
        told = Counter(found for found in told.elements() if found[1] != "attributes")
    if (before, op) == ("twice", "delete"):  # so soon behind the jail's own; see "Does not stop"
        assert told <= expected
    else:
        assert told == expected


@pytest.mark.parametrize("pace", [1, 3])
@pytest.mark.parametrize("before", BEFORE)
def test_the_jail_itself_whatever_the_pace(jail, root, eyes, before, pace):
    with jail.watch(eyes) as watch:
        due = Paced.of(watch)
        for first in range(10):
            for last in (None, "delete"):
                with due.slow(pace):
                    for call, *content in BEFORE[before]:
                        getattr(jail, call)(f"{last}{first}", *content)
                    due.give(first)
                    if last:
                        getattr(jail, last)(f"{last}{first}")
    assert eyes.all() == []


@pytest.mark.parametrize(("op", "change"), RIGHT_AFTER)
def test_a_raw_change_right_after_the_jails_own_found_by_looking(jail, root, eyes, op, change):
    with jail.watch(eyes, polling=True):
        jail.write_text("f", "good")
        change(root / "f")
    unseen = change in (Path.unlink, overwrite_and_set_times_back) or op == "attributes"
    assert eyes.all() == ([] if unseen else [("unexplained", op, "f")])


def test_that_a_name_was_free_once_explains_nothing_later(jail, root, eyes):
    """The jail has deleted the name before; that record must not cover a deletion by somebody else."""
    for number in range(10):
        with jail.watch(eyes) as watch:
            jail.write_text(f"f{number}", "one")
            jail.delete(f"f{number}")
            jail.write_text(f"f{number}", "two")
            until(lambda number=number: watch._patrol._tree.expected(f"f{number}") is not None, "not seen")
            time.sleep(0.05)
            raw("os.unlink(arguments[0])", f"f{number}", cwd=root)
    assert eyes.all() == [("unexplained", "delete", f"f{number}") for number in range(10)]


def test_a_bell_that_nobody_hears_is_not_waited_for_long(jail, root, eyes, monkeypatch):
    monkeypatch.setattr("fsjail._doubts._BELL_NS", 200_000_000)
    with jail.watch(eyes) as watch:
        reader = watch._patrol.reader
        take = reader.take
        reader.take = lambda: [notice for notice in take() if notice.watch != reader.bell]
        (root / "d").mkdir()
        eyes.wait("unexplained", "d")
        reader.take = take


def test_a_bell_that_is_lost_is_rung_again(jail, root, eyes):
    with jail.watch(eyes) as watch:
        reader = watch._patrol.reader
        reader._rung = True  # the kernel dropped it, with other notices
        reader.on_queue_overflow()
        (root / "d").mkdir()
        began = time.monotonic()
        eyes.wait("unexplained", "d")
        assert time.monotonic() - began < 4  # not as long as a bell is waited for
    assert eyes.find("gap", op="overflow")


def test_what_was_put_after_the_look_is_not_forgotten_with_what_is_gone(jail, root):
    """Told was that the first is gone; the second came between that look and the reading of the log."""
    ledger = Ledger(jail.audit.folder, clock=True)
    try:
        ledger.begin()
        jail.write_text("f", "one")
        time.sleep(0.001)
        looked = time.time_ns()
        (root / "f").unlink()
        jail.write_text("f", "two")
        assert ledger.read()
        assert len(ledger._names["f"]) == 2
        ledger.drop("f", looked)
        now = Seen.of((root / "f").stat())
        assert [left.fits(now) for left in ledger._names["f"]] == [True]
    finally:
        ledger.close()


def test_records_say_what_was_left(jail, root):
    jail.write_text("a", "content")
    jail.mkdir("d")
    jail.move("a", "d/b")
    jail.delete("d")
    left = [(event.op, (event.extra or {}).get("left")) for event in jail.audit.events()]
    jail.undo()
    file, folder = (root / "d/b").stat(), (root / "d").stat()
    fact = f"{file.st_ino}:7:{file.st_mtime_ns}"
    assert left == [("write", fact), ("mkdir", f"{folder.st_ino}"), ("move", fact), ("delete", None)]


# ── new and strange directories ──────────────────────────────────────────────────────────────────


def test_directories_made_and_filled_faster_than_they_can_be_watched(jail, root, eyes):
    with jail.watch(eyes):
        raw(
            """
            for a in range(5):
                for b in range(5):
                    os.makedirs(f"{a}/{b}/x/y")
                    for c in range(10):
                        open(f"{a}/{b}/x/y/{c}", "w").close()
            """,
            cwd=root,
        )
        until(lambda: eyes.count() >= 5 + 25 * 13, eyes.count())
        (root / "4/4/x/y/late").write_text("x")
    assert eyes.count() == 5 + 25 * 13 + 1


def test_a_directory_that_was_moved_is_watched_under_its_new_name(jail, root, eyes):
    (root / "one/two").mkdir(parents=True)
    with jail.watch(eyes):
        os.rename(root / "one", root / "uno")
        eyes.wait("unexplained", "uno", "create")
        (root / "uno/two/f").write_text("x")
        eyes.wait("unexplained", "uno/two/f")
        jail.move("uno/two", "dos")
        (root / "dos/g").write_text("x")
        eyes.wait("unexplained", "dos/g")


def test_what_was_moved_out_is_let_go(base, jail, root, eyes):
    (root / "one/two").mkdir(parents=True)
    with jail.watch(eyes) as watch:
        os.rename(root / "one", base / "outside/one")
        eyes.wait("unexplained", "one", "delete")
        until(lambda: len(watch._patrol._tree.by_watch) == 1, "the watches stay")
        (base / "outside/one/two/f").write_text("x")
        os.rename(base / "outside/one", root / "one")
        eyes.wait("unexplained", "one/two/f")
    assert len(eyes.all()) == 4  # it went; it came back with two names in it


def test_links_to_directories_are_not_followed(base, jail, root, eyes):
    (root / "inner").mkdir()
    os.symlink("inner", root / "way")
    os.symlink(base / "outside", root / "out")
    with jail.watch(eyes):
        (base / "outside/f").write_text("x")
        (root / "way/f").write_text("x")
    assert eyes.all() == [("unexplained", "create", "inner/f")]


def test_the_same_directory_again_and_again(jail, root, eyes):
    """An inode is used again at once; what is known of the old directory must not stand for the new one."""
    with jail.watch(eyes):
        raw(
            """
            for number in range(200):
                os.mkdir("d"); open(f"d/f{number}", "w").close(); shutil.rmtree("d")
            os.mkdir("d")
            """,
            cwd=root,
        )
        eyes.wait("unexplained", "d")
        until(lambda: not watch_busy(eyes), "it does not end")
        (root / "d/last").write_text("x")
        eyes.wait("unexplained", "d/last")


def watch_busy(eyes):
    before = len(eyes.events)
    time.sleep(0.2)
    return len(eyes.events) != before


def as_nobody(code, *arguments, cwd=None):
    """Run a program with the jail as a user without privileges; what he may not read is imported before."""
    program = (
        "import os, logging, fsjail.watch, fsjail._redact, watchdog.observers.inotify_c\n"
        "fsjail.Jail, fsjail.Policy\n"
        "if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
    )
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    return subprocess.run(
        [sys.executable, "-c", program + textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=cwd,
        env=environment,
    )


def test_folders_that_cannot_be_listed_are_said_aloud(base, root):
    """Without privileges, in a root that may not be written: not fatal, and the rest is watched."""
    (root / "open").mkdir()
    (root / "closed/below").mkdir(parents=True)
    (root / "closed").chmod(0)
    (root / "open").chmod(0o777)
    if os.getuid() == 0:
        root.chmod(0o755)
        os.chown(root / "closed", 0, 0)
    (base / "state").mkdir(mode=0o777)
    (base / "state").chmod(0o777)
    done = as_nobody(
        """
        import sys
        from fsjail import Jail, Policy
        root, state = sys.argv[1:]
        told = []
        with Jail(root, Policy.workspace(), state=state) as jail:
            with jail.watch(told.append) as watch:
                print(watch.polling)
                open(root + "/open/raw", "w").close()
        for event in told:
            print(event.extra["kind"], event.op, event.path, event.extra.get("folders"))
        """,
        root,
        base / "state",
    )
    (root / "closed").chmod(0o700)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["False", "blind list closed 1", "unexplained create open/raw None"]


def test_4200_directories(base, root, eyes):
    """Above 4,096 the default observer of watchdog 7.1.0 answers its own look at the tree without end."""
    for number in range(42):
        for inner in range(100):
            (root / str(number) / str(inner)).mkdir(parents=True)
    with Jail(root, Policy.workspace(), state=base / "state") as jail, jail.watch(eyes) as watch:
        assert watch.polling is False
        assert len(watch._patrol._tree.by_watch) == 42 * 101 + 1
        taken = []
        take = watch._patrol.reader.take
        watch._patrol.reader.take = lambda: taken.extend(notices := take()) or notices
        before = time.process_time()
        raw("for _ in os.walk('.'): pass", cwd=root)  # opens and closes each directory
        raw("open('0/0/f', 'w').close()\nfor _ in range(99): open('0/0/f').read()", cwd=root)
        eyes.wait("unexplained", "0/0/f")
        time.sleep(0.3)
        spent = time.process_time() - before
        (root / "41/99/last").write_text("x")
        eyes.wait("unexplained", "41/99/last")
        assert watch._patrol.reader.alive
    assert len(taken) < 20, "opening and reading has notices"
    assert not [notice for notice in taken if notice.mask & OPENED and notice.watch != watch_bell(taken)]
    assert not CHANGES & (OPENED | 0x10), "opens, and closes of what was only read"
    assert eyes.find("gap") == []
    print(f"processor time for a walk: {spent:.3f} s")


def watch_bell(notices):
    """The number of the one watch that is meant to be opened."""
    return next((notice.watch for notice in notices if notice.mask & OPENED), -1)


# ── losses are never silent ──────────────────────────────────────────────────────────────────────


def command(*arguments):
    return [sys.executable, "-m", "fsjail.cli", *map(str, arguments)]


@pytest.fixture
def project(base, root, home):
    (root / "fsjail.toml").write_text('[write]\nallow = ["src/"]\n')
    (root / "src").mkdir()
    return root


@contextlib.contextmanager
def started(*arguments, cwd):
    """Start ``fsjail watch`` and wait until it watches; it never outlives the test."""
    running = subprocess.Popen(
        command("watch", *arguments),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": SOURCE},
    )
    end = threading.Timer(2 * PATIENCE, running.kill)  # so that nothing waits for a line without end
    end.start()
    try:
        line = running.stderr.readline()
        assert line.startswith("fsjail: watching "), line + running.stderr.read()
        yield running
    finally:
        end.cancel()
        running.kill()
        running.wait()
        running.stdout.close()
        running.stderr.close()


def test_an_overflow_becomes_a_gap_and_a_look(project):
    """The watch is stopped while more happens than the kernel's queue holds: every name is found."""
    count = int(QUEUE.read_text()) + 600
    if count > 40_000:
        pytest.skip("the queue of this system is too long to fill here")
    with started("--json", cwd=project) as watch:
        watch.send_signal(signal.SIGSTOP)
        code = f"for n in range({count}): os.close(os.open(f'src/{{n}}', os.O_CREAT | os.O_WRONLY))"
        raw(code, cwd=project)
        watch.send_signal(signal.SIGCONT)
        found, gaps = 0, 0
        while found < count:
            event = json.loads(watch.stdout.readline())
            gaps += event["extra"]["kind"] == "gap"
            if event["extra"]["kind"] == "unexplained":
                assert event["op"] == "create"
                found += 1 + event["extra"].get("more", 0)
        (project / "src/after").write_text("x")
        while event["path"] != "src/after":
            event = json.loads(watch.stdout.readline())
            found += 1 + event["extra"].get("more", 0)
        watch.send_signal(signal.SIGINT)
        rest = [json.loads(line) for line in watch.stdout]
        assert watch.wait(PATIENCE) == 0
    assert gaps == 1
    assert found == count + 1
    assert rest == []


def test_our_own_bound_is_a_gap_too(jail, root, eyes):
    watch = jail.watch(eyes)
    watch._bound = 10
    with watch:
        take, watch._patrol.reader.take = watch._patrol.reader.take, list  # nobody empties it
        raw("for n in range(40): open(str(n), 'w').close()", cwd=root)
        until(lambda: len(watch._patrol.reader._due) >= 10, "nothing came")
        watch._patrol.reader.take = take
        eyes.wait("gap", op="overflow")
        until(lambda: eyes.count() >= 40, eyes.count())
    assert eyes.count() == 40
    assert any(event.extra.get("looked") for event in eyes.find("unexplained"))


def test_a_gap_in_the_middle_of_work_explains_itself(base, root, eyes):
    """Notices of a jail's own work are lost: the look afterwards finds it in order."""
    with Jail(root, Policy.workspace(), state=base / "state", durability="none") as jail:
        watch = jail.watch(eyes)
        watch._bound = 1
        with watch:
            for worker in workers(root, base / "state", 200, 2):
                worker.communicate()
    assert eyes.find("gap")
    assert eyes.all() == []


@pytest.fixture
def limited():
    """A namespace of its own, in which limits can be lowered without harm to anybody."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare(1) here")
    try:
        probe = subprocess.run(
            ["unshare", "--user", "--map-root-user", "cat", "/proc/sys/user/max_inotify_watches"],
            capture_output=True,
            timeout=10,
            check=False,
        )
    except OSError:
        probe = None
    if probe is None or probe.returncode:
        pytest.skip("no user namespace can be had here")

    def run(limit, value, code, *arguments):
        lower = f"open('/proc/sys/user/{limit}', 'w').write('{value}')\n"
        return subprocess.run(
            [
                *("unshare", "--user", "--map-root-user", sys.executable, "-c"),
                "import sys, time\n" + lower + textwrap.dedent(code),
                *map(str, arguments),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "PYTHONPATH": SOURCE},
        )

    return run


LIMITED = """
    from fsjail import Jail, Policy
    root, state = sys.argv[1:]
    told = []
    with Jail(root, Policy.workspace(), state=state) as jail:
        with jail.watch(told.append) as watch:
            polling = watch.polling
            for number in range(9):
                open(f"{root}/d{number}/raw", "w").close()
            end = time.monotonic() + 30
            while sum(e.extra["kind"] == "unexplained" for e in told) < 9 and time.monotonic() < end:
                time.sleep(0.01)
            jail.write_text("d8/own", "x")
        print(polling)
    for event in told:
        if event.extra["kind"] != "unexplained":
            print(event.extra["kind"], event.op, event.extra.get("folders"), event.extra["reason"])
    print(sorted(e.path for e in told if e.extra["kind"] == "unexplained"))
"""


def test_no_watch_left_for_some_directories(base, root, limited):
    for number in range(9):
        (root / f"d{number}").mkdir()
    done = limited("max_inotify_watches", 5, LIMITED, root, base / "state")
    assert done.stderr == ""
    polling, gap, found = done.stdout.splitlines()
    assert polling == "False"
    assert gap.startswith("gap limit 6 no watch is left"), "of 9 and the root; one more watch is the bell's"
    assert found == str([f"d{number}/raw" for number in range(9)])


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ("max_inotify_instances", "inotify instance limit reached"),
        ("max_inotify_watches", "watch limit reached"),
    ],
)
def test_no_inotify_at_all_is_polled(base, root, limited, limit, reason):
    for number in range(9):
        (root / f"d{number}").mkdir()
    done = limited(limit, 0, LIMITED, root, base / "state")
    assert done.stderr == ""
    polling, said, found = done.stdout.splitlines()
    assert polling == "True"
    assert said.startswith("polling poll None ")
    assert reason in said
    assert found == str([f"d{number}/raw" for number in range(9)])


def test_where_notices_do_not_come_it_polls(jail, root, eyes, monkeypatch):
    """A file system that takes a watch and never says anything."""
    monkeypatch.setattr(Reader, "hears", lambda *_: False)
    with jail.watch(eyes) as watch:
        assert watch.polling
        raw("open('raw', 'w').close()", cwd=root)
        eyes.wait("unexplained", "raw")
    assert eyes.find("polling")[0].extra["reason"] == "the system gives no notices here"
    with pytest.raises(OSError, match="cannot be watched"), jail.watch(eyes, polling=False):
        pass


def test_a_network_mount_is_polled(jail, root, eyes, monkeypatch):
    """Its other users change it without a notice here, whatever the canary says."""
    number = next(
        line.split()[1].encode()
        for line in Path(f"/proc/self/fdinfo/{jail._root.fd}").read_text().splitlines()
        if line.startswith("mnt_id:")
    )
    monkeypatch.setattr("fsjail._watched.mounts", lambda: [(number, b"/", "nfs4")])
    with jail.watch(eyes) as watch:
        assert watch.polling
    assert "nfs4" in eyes.find("polling")[0].extra["reason"]
    with jail.watch(eyes, polling=False) as watch:  # its owner knows better
        assert watch.polling is False


def test_a_network_mount_beneath_is_looked_at_too(jail, root, eyes, monkeypatch):
    (root / "far").mkdir()
    place = os.fsencode(root / "far")
    monkeypatch.setattr("fsjail._patrol.mounts", lambda: [(b"0", place, "cifs")])
    with jail.watch(eyes) as watch:
        assert watch.polling is False
        reader = watch._patrol.reader
        heard = reader.take
        # Its changes have no notices.
        reader.take = lambda: [notice for notice in heard() if notice.watch == reader.bell]
        (root / "far/f").write_text("x")
        eyes.wait("unexplained", "far/f")
    assert eyes.find("polling", "far")


def test_a_reader_that_dies_is_a_gap(jail, root, eyes):
    with jail.watch(eyes) as watch:
        watch._patrol.reader._inner.stop()
        eyes.wait("gap", op="reader")
        (root / "raw").write_text("x")
        eyes.wait("unexplained", "raw")


def test_a_flood_is_counted(jail, root, eyes):
    with jail.watch(eyes):
        raw("for n in range(3000): open(str(n), 'w').close()", cwd=root)
        raw("for n in range(150): open(f'.env.{n}', 'w').close()", cwd=root)
    assert (eyes.count(), eyes.count("denied change")) == (3000, 150)
    assert len(eyes.events) < 1000
    assert sum(1 + e.extra.get("more", 0) for e in jail.audit.events() if e.layer == "watch") == 3150


@pytest.mark.soak
def test_60000_creates(jail, root, eyes):
    with jail.watch(eyes) as watch:
        raw("for n in range(60_000): os.close(os.open(str(n), os.O_CREAT | os.O_WRONLY))", cwd=root)
        until(lambda: eyes.count() >= 60_000, eyes.count())
        assert len(watch._patrol._tree.top.names) == 60_000
    assert eyes.count() == 60_000


# ── tripwires, the trash, the root itself ────────────────────────────────────────────────────────

WIRES = {
    "write": (WRITE.format("folder/f", "w"), [("write", "folder/f")]),
    "append": (WRITE.format("file", "a"), [("write", "file")]),
    "chmod": ('os.chmod("file", 0o777)', [("attributes", "file")]),
    "create": (WRITE.format("folder/new", "w"), [("create", "folder/new")]),
    "deep": ('os.makedirs("folder/x/y"); open("folder/x/y/z", "w")', [("create", "folder/x/y/z")]),
    "delete": ('os.unlink("folder/f")', [("delete", "folder/f")]),
    "delete the file": ('os.unlink("file")', [("delete", "file")]),
    "replace": ('open("n", "w").write("xx"); os.rename("n", "file")', [("replace", "file")]),
    "came and went": ('open("folder/t", "w").close(); os.unlink("folder/t")', [("create", "folder/t")]),
    "all of it": ('shutil.rmtree("folder")', [("delete", "folder"), ("delete", "folder/f")]),
    "renamed": ('os.rename("folder", "other")', [("delete", "folder"), ("delete", "folder/f")]),
    "appears": ('os.makedirs("not/yet"); open("not/yet/there", "w")', [("create", "not/yet/there")]),
    "behind the link": (WRITE.format("real/f", "a"), [("write", "real/f")]),
    "the link": ('os.symlink("folder", "l"); os.rename("l", "link")', [("replace", "link")]),
}


@pytest.fixture
def wires(base):
    place = base / "host"
    (place / "folder").mkdir(parents=True)
    (place / "folder/f").write_text("f")
    (place / "file").write_text("f")
    (place / "real").mkdir()
    (place / "real/f").write_text("f")
    os.symlink("real", place / "link")
    return place


@pytest.mark.parametrize("name", WIRES)
@pytest.mark.parametrize("polling", [False, True], ids=["notices", "polling"])
def test_tripwires(jail, wires, eyes, name, polling):
    if polling and name == "came and went":
        pytest.skip("between two looks")
    code, expected = WIRES[name]
    paths = [wires / each for each in ("folder", "file", "not/yet/there", "link")]
    with jail.watch(eyes, tripwires=paths, polling=polling):
        raw(code, cwd=wires)
        if not polling:
            for op, path in expected:
                eyes.wait("tripwire", str(wires / path), op)
    told = Counter((event.op, event.path) for event in eyes.find("tripwire"))
    for op, path in expected:
        assert told[op, str(wires / path)] == 1, told
    assert all(event.decision == "deny" for event in eyes.find("tripwire"))
    assert not eyes.find("unexplained")


def test_a_quiet_tripwire(base, jail, wires, eyes):
    """Reading it, and what is done beside it, is nothing; the log beneath a tripwire is the jail's own."""
    with jail.watch(eyes, tripwires=[wires / "file", base]):
        raw("open('file').read(); os.listdir('folder')", cwd=wires)
        jail.write_text("a", "x")
    assert eyes.all() == []
    with jail.watch(eyes, tripwires=[wires / "file"]):
        raw("open('beside', 'w').close()", cwd=wires)
    assert eyes.all() == []


def test_the_home_of_a_tripwire(jail, eyes, home):
    jail.tripwires = ("~/.ssh",)
    with jail.watch(eyes):
        (home / ".ssh").mkdir()
        event = eyes.wait("tripwire")
    assert (event.path, event.extra["tripwire"]) == (str(home / ".ssh"),) * 2


def test_a_tripwire_inside_is_refused(jail, root):
    os.symlink(root, root.parent / "way")
    for path in (root, root / "x", root.parent / "way/x"):
        with pytest.raises(ValueError, match="outside the root"):
            jail.watch(tripwires=[path])


def test_a_tripwire_that_cannot_be_seen_is_said_aloud(base, root, wires):
    (wires / "folder").chmod(0)
    (base / "state").mkdir()
    (base / "state").chmod(0o777)
    done = as_nobody(
        """
        import sys
        from fsjail import Jail
        root, state, wire = sys.argv[1:]
        told = []
        with Jail(root, state=state) as jail, jail.watch(told.append, tripwires=[wire]):
            pass
        print([(e.extra["kind"], e.op, e.path == wire, e.extra["reason"]) for e in told])
        """,
        root,
        base / "state",
        wires / "folder",
    )
    (wires / "folder").chmod(0o700)
    assert done.stderr == ""
    assert done.stdout == "[('blind', 'tripwire', True, 'Permission denied')]\n"


@pytest.mark.parametrize("polling", [False, True], ids=["notices", "polling"])
def test_a_kept_item_that_somebody_removes_or_changes(jail, root, eyes, polling):
    jail.write_text("a", "one")
    items = [jail.write_text("a", f"{number}").saved.id for number in range(3)]
    kept = root / ".fsjail/Trash/files"
    with jail.watch(eyes, polling=polling):
        items.append(jail.delete("a").saved.id)
        jail.trash.restore(items.pop(0))
        jail.trash.purge(keep_bytes=10**6)
        raw("os.unlink(arguments[0])", kept / items[0], cwd=root)
        raw("open(arguments[0], 'a').write('evil')", kept / items[1], cwd=root)
        if not polling:
            eyes.wait("trash", op="delete")
            eyes.wait("trash", op="write")
    told = [(event.op, event.path, event.trash_id) for event in eyes.find("trash")]
    assert sorted(told) == [
        ("delete", f".fsjail/Trash/files/{items[0]}", items[0]),
        ("write", f".fsjail/Trash/files/{items[1]}", items[1]),
    ]
    assert eyes.all() == [one for one in eyes.all() if one[0] == "trash"]


def test_the_whole_trash_removed(jail, root, eyes):
    jail.write_text("a", "one")
    jail.delete("a")
    with jail.watch(eyes):
        raw("shutil.rmtree('.fsjail')", cwd=root)
        eyes.wait("trash", ".fsjail")
        jail.write_text("b", "one")
        item = jail.delete("b").saved.id  # the jail makes a new one, and that is watched
        until(lambda: item in (eyes_trash := watch_trash(jail)) or not eyes_trash, "no trash")
    assert {op for kind, op, _ in eyes.all() if kind == "trash"} == {"delete"}
    assert len(eyes.find("trash")) == 2


def watch_trash(jail):
    return {item.id for item in jail.trash.items()}


@pytest.mark.parametrize("polling", [False, True], ids=["notices", "polling"])
def test_the_root_moved_replaced_deleted(base, jail, root, eyes, polling):
    with jail.watch(eyes, polling=polling):
        raw("os.rename('root', 'elsewhere')", cwd=base)
        eyes.wait("root", op="move")
        (base / "elsewhere/raw").write_text("x")
        eyes.wait("unexplained", "raw")  # it is still that directory that the jail works in
        raw("os.mkdir('root')", cwd=base)
        eyes.wait("root", op="replace")
        raw("os.rmdir('root'); os.rename('elsewhere', 'root')", cwd=base)
        eyes.wait("root", op="return")
        raw("shutil.rmtree('root')", cwd=base)
        eyes.wait("root", op="delete")


def test_a_folder_above_the_root_moved(base, tmp_path, eyes):
    with Jail(base / "root", state=tmp_path / "state") as jail, jail.watch(eyes):
        base.rename(base.parent / "BASE2")
        eyes.wait("root", op="move")
        (base.parent / "BASE2").rename(base)
        eyes.wait("root", op="return")


# ── running it ───────────────────────────────────────────────────────────────────────────────────


def test_a_callback_that_fails(jail, root, eyes, caplog):
    def fails(event):
        eyes(event)
        raise RuntimeError("no")

    with jail.watch(fails):
        raw("open('a', 'w').close()", cwd=root)
        eyes.wait("unexplained", "a")
        raw("open('b', 'w').close()", cwd=root)
        eyes.wait("unexplained", "b")
    assert caplog.text.count("on_event failed") == 1


def test_a_callback_may_use_the_jail_and_end_the_watch(jail, root, eyes):
    """What it does is explained by its records; ending the very thread that it runs in is left to others."""

    def undoes(event):
        eyes(event)
        jail.delete(event.path)
        watch.__exit__(None, None, None)

    with jail.watch(undoes) as watch:
        raw("open('a', 'w').close()", cwd=root)
        until(lambda: not (root / "a").exists(), "not deleted")
    assert eyes.all() == [("unexplained", "create", "a")]


def test_a_log_that_cannot_be_written_silences_nothing(base, root, eyes, caplog):
    (base / "state").write_text("no folder")
    with Jail(root, Policy.workspace(), state=base / "state") as jail, jail.watch(eyes):
        raw("open('a', 'w').close(); open('.env', 'w').close()", cwd=root)
        event = eyes.wait("unexplained", "a")
        denied = eyes.wait("denied change", ".env")
    assert (event.seq, event.layer, event.decision) == (0, "watch", "error")
    assert denied.rule["pattern"] == ".env"
    assert eyes.find("blind", op="log")


def test_the_logs_folder_removed_meanwhile(base, jail, root, eyes):
    for number in range(40):
        jail.write_text(f"a{number}", "x")
    with jail.watch(eyes):
        shutil.rmtree(base / "state")
        until((base / "state" / NAME).exists, "the marks are not offered again")
        for number in range(20):
            jail.write_text(f"f{number}", "x")
        raw("open('raw', 'w').close()", cwd=root)
        eyes.wait("unexplained", "raw")
    assert eyes.all() == [("unexplained", "create", "raw")]


def test_a_log_inside_the_root(base, root, eyes):
    with (
        Jail(root, Policy.workspace(), state=root / "logs/state", trash_location=root / "kept") as jail,
        jail.watch(eyes),
    ):
        jail.write_text("a", "one")
        jail.write_text("a", "two")
        raw("open('raw', 'w').close()", cwd=root)
        eyes.wait("unexplained", "raw")
    assert eyes.all() == [("unexplained", "create", "raw")]


def test_rotation_of_the_log_hides_nothing(base, root, eyes):
    """The log is rotated every few records, by two jails, while the watch reads it."""
    state = base / "state"
    small = {"state": state, "log_bytes": 2000, "log_files": 200, "durability": "none"}
    with (
        Jail(root, Policy.workspace(), **small) as one,
        Jail(root, Policy.workspace(), **small) as two,
        one.watch(eyes),
    ):
        for number in range(150):
            one.write_text(f"one{number}", "x")
            two.write_text(f"two{number}", "x")
    assert eyes.all() == []
    assert len(list(state.glob("audit.*.jsonl"))) > 50


def descriptors():
    return {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if exists(fd)}


def exists(fd):
    return os.path.lexists(f"/proc/self/fd/{fd}")


@pytest.mark.parametrize("polling", [False, True], ids=["notices", "polling"])
def test_again_and_again_and_nothing_is_left(base, jail, root, eyes, wires, polling):
    (root / "d").mkdir()
    jail.write_text("a", "x")
    jail.write_text("a", "y")
    watch = jail.watch(eyes, tripwires=[wires / "folder"], polling=polling)
    with watch:
        pass
    before, threads = len(descriptors()), set(threading.enumerate())
    for number in range(5):
        with watch:
            with pytest.raises(RuntimeError, match="already"):
                watch.__enter__()
            (root / f"d/{number}").write_text("x")
            os.rename(root / "d", root / "e")
            os.rename(root / "e", root / "d")
    assert watch.polling is None
    assert len(descriptors()) == before, descriptors()
    assert set(threading.enumerate()) == threads
    assert sorted(os.listdir(base / "state")) == ["audit.jsonl", NAME, "head", "lock"]
    assert {f"d/{number}" for number in range(5)} <= {path for _, _, path in eyes.all()}


def test_nothing_is_left_of_what_could_not_begin(jail, base, monkeypatch):
    before, threads = len(descriptors()), set(threading.enumerate())
    monkeypatch.setattr("fsjail._tree.Tree.fill", lambda _: (_ for _ in ()).throw(OSError("no")))
    with pytest.raises(OSError, match="no"), jail.watch():
        pass
    assert len(descriptors()) == before
    assert set(threading.enumerate()) == threads


def test_a_forked_child_leaves_the_watch_alone(jail, root, eyes):
    with jail.watch(eyes) as watch:
        child = os.fork()
        if child == 0:
            watch.__exit__(None, None, None)
            os._exit(0)
        os.waitpid(child, 0)
        raw("open('a', 'w').close()", cwd=root)
        eyes.wait("unexplained", "a")


def test_two_watches_at_once(jail, root, eyes):
    other = Eyes()
    with jail.watch(eyes), Watch(jail, other):
        jail.write_text("own", "x")
        raw("open('a', 'w').close()", cwd=root)
        eyes.wait("unexplained", "a")
        other.wait("unexplained", "a")
    assert eyes.all() == other.all() == [("unexplained", "create", "a")]


def test_marks(tmp_path):
    """Who nobody watches marks nothing; a mark is seen by others, and gone with its process."""
    folder = str(tmp_path / "a/b")
    jail, watch = UnderWay(folder), UnderWay(folder)
    assert jail.begin() == 0
    assert not os.path.exists(folder)
    assert watch.free(time.monotonic_ns()) is None
    assert watch.offer()
    assert watch.offer(), "again"
    early = time.monotonic_ns()
    one, two = jail.begin(), jail.begin()
    assert early < one < two
    assert watch.free(early) is True
    assert watch.free(one) is watch.free(two) is watch.free(time.monotonic_ns()) is False
    jail.end(one)
    assert watch.free(one) is True
    assert watch.free(two) is False
    child = os.fork()  # it has a copy of the descriptor, and must not let go of its parent's marks
    if child == 0:
        mine = jail.begin()
        jail.end(mine)
        jail.close()
        os._exit(0 if mine > two else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert watch.free(time.monotonic_ns()) is False
    jail.end(two)
    assert watch.free(time.monotonic_ns()) is True
    jail.begin()
    jail.close()
    assert watch.free(time.monotonic_ns()) is True
    watch.close()


@pytest.mark.parametrize("planted", ["link", "fifo", "folder"])
def test_a_planted_mark_file(base, root, eyes, planted):
    (base / "state").mkdir()
    place = base / "state" / NAME
    {
        "link": lambda: place.symlink_to(base / "victim"),
        "fifo": lambda: os.mkfifo(place),
        "folder": place.mkdir,
    }[planted]()
    with Jail(root, Policy.workspace(), state=base / "state") as jail, jail.watch(eyes):
        jail.write_text("a", "x")
        raw("open('raw', 'w').close()", cwd=root)
        eyes.wait("unexplained", "raw")
    assert eyes.all() == [("unexplained", "create", "raw")]
    assert eyes.find("blind", op="log")
    assert not (base / "victim").exists()


# ── fsjail watch ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_line(project, number):
    with started(cwd=project) as watch:
        raw("open('src/a', 'w').close(); os.symlink('/etc', 'src/\\x1b[2J')", cwd=project)
        raw("open('.env', 'w').close()", cwd=project)
        lines = [watch.stdout.readline() for _ in range(3)]
        watch.send_signal(number)
        assert watch.stdout.read() == ""
        assert watch.wait(PATIENCE) == 0
        assert watch.stderr.read() == ""
    assert lines[0].endswith("  unexplained: create src/a\n")
    assert lines[1].endswith("  link: create src/\\x1b[2J -> /etc\n")
    assert lines[2].endswith("  denied change: create .env (preset secrets[0]: .env (preset secrets))\n")
    done = subprocess.run(
        command("log", "--layer", "watch"),
        cwd=project,
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": SOURCE},
    )
    assert done.stdout.count("  seen  ") == 3
    assert "denied  " not in done.stdout


def test_command_line_json(project):
    with started("--json", "--no-unexplained", cwd=project / "src") as watch:
        raw("open('src/a', 'w').close(); open('.env', 'w').close()", cwd=project)
        event = json.loads(watch.stdout.readline())
        watch.send_signal(signal.SIGINT)
        assert watch.stdout.read() == ""
        assert watch.wait(PATIENCE) == 0
    assert (event["layer"], event["path"], event["extra"]["kind"]) == ("watch", ".env", "denied change")


def test_command_line_polling(project):
    (project / "fsjail.toml").write_text('[write]\nallow = ["src/"]\n[watch]\nunexplained = false\n')
    with started("--polling", cwd=project) as watch:
        raw("open('src/a', 'w').close(); open('.env', 'w').close()", cwd=project)
        lines = [watch.stdout.readline() for _ in range(2)]
        watch.send_signal(signal.SIGINT)
        assert watch.stdout.read() == "", "the configuration has switched it off"
        assert watch.wait(PATIENCE) == 0
    assert "polling: poll . (asked for)" in lines[0]
    assert "denied change: create .env" in lines[1]


def test_command_line_without_a_reader(project):
    with started(cwd=project) as watch:
        watch.stdout.close()
        assert watch.wait(PATIENCE) == 141


def test_command_line_sees_what_another_command_does_not(project):
    """``fsjail`` commands of the same project are jails too."""
    with Jail.load(project) as jail:
        jail.write_text("src/a", "one")
        jail.write_text("src/a", "two")
    with started(cwd=project) as watch:
        for arguments in (["undo"], ["undo"], ["trash", "purge", "--older-than-days", "0", "--yes"]):
            subprocess.run(
                command(*arguments),
                cwd=project,
                check=False,
                capture_output=True,
                env={**os.environ, "PYTHONPATH": SOURCE},
            )
        watch.send_signal(signal.SIGINT)
        assert watch.stdout.read() == ""
        assert watch.wait(PATIENCE) == 0


def test_a_change_that_the_disk_did_not_confirm_is_the_jails_own(jail, root, eyes, monkeypatch):
    (root / "f").write_text("old")
    (root / "g").write_text("old")
    jail.write_text("first", "so that the folders are there")
    real = _home.sync_folder

    def fails(fd, *, durable):
        real(fd, durable=durable)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with jail.watch(eyes):
        monkeypatch.setattr(_home, "sync_folder", fails)
        with pytest.raises(TrashError):
            jail.delete("f")
        monkeypatch.undo()
        os.unlink(root / "g")
        eyes.wait("unexplained", "g")
    assert [(event.op, event.path) for event in eyes.find("unexplained")] == [("delete", "g")]
