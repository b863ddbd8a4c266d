"""The log as it is looked at: filters, the last records, following, subscribers, and `fsjail log`."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pytest
from typer.testing import CliRunner

from fsjail import Event, Jail, Policy
from fsjail._audit import AuditLog
from fsjail._follow import Follower
from fsjail._logfiles import lines_backwards, take_lock
from fsjail._subscribers import Subscribers
from fsjail.cli import _app, _log
from fsjail.cli._summary import Summary, Tally, Times

EVIL = "[red]\x1b]0;owned\x07\nb\u202etxt.exe"


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "state" / "log")


@pytest.fixture
def project(home, tmp_path, monkeypatch) -> Path:
    """A root with a configuration, which is the current folder."""
    root = tmp_path / "project"
    (root / "src").mkdir(parents=True)
    (root / "fsjail.toml").write_text('write.allow = ["src/"]\nread.deny = ["private/"]\n')
    monkeypatch.chdir(root)
    return root


def deny(log: AuditLog, path: str, **more) -> Event | None:
    return log.record("read", path, decision="deny", why="read.deny[0]", **more)


def change(log: AuditLog, path: str, **more) -> Event | None:
    return log.record("write", path, decision="allow", why="write.allow[0]", **more)


def call(*args: str, code: int = 0) -> str:
    """Run a command in this process; give what it printed."""
    result = CliRunner().invoke(_app.app, ["log", *args], prog_name="fsjail")
    assert result.exit_code == code, (result.exit_code, result.output, result.exception)
    return result.output


def log_of(root: Path, actor: str = "agent-7", **options: Any) -> AuditLog:
    """A second writer on the log of a project."""
    with Jail.load(root) as jail:
        return AuditLog(jail.audit.folder, actor=actor, **options)


# Filters


def test_events_by_operation_layer_decision_and_time(folder):
    with AuditLog(folder, actor="a") as one, AuditLog(folder, actor='b"\\\n') as two:
        deny(one, "1")
        change(two, "2")
        middle = one.record("list", "3", decision="error", why="x", layer="watch", extra={"op": "write"})
        change(one, "4")
        assert middle is not None

        def paths(**wanted) -> str:
            found = "".join(event.path for event in one.events(**wanted))
            last, count = one.tail(99, **wanted)
            assert "".join(event.path for event in last) == found
            assert count == len(found)
            return found

        assert paths() == "1234"
        assert paths(op="write") == "24"
        assert paths(op=["list", "read"]) == "13"
        assert paths(layer="watch") == "3"
        assert paths(layer=["jail", "watch"]) == "1234"
        assert paths(decision="error") == "3"
        assert paths(decision=("error", "allow")) == "234"
        assert paths(decision=("error", "deny"), denied=False) == "3"
        assert paths(decision="allow", denied=True) == ""
        assert paths(denied=False) == "234"
        assert paths(actor='b"\\\n') == "2"
        assert paths(actor=["a", "c"]) == "134"
        assert paths(until=middle.time) == "123"
        assert paths(since=middle.time, until=middle.time) == "3"
        assert paths(until=datetime.now(UTC) - timedelta(hours=1)) == ""
        assert paths(op=[]) == ""


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.env", "bce"),
        ("/*.env", "b"),
        ("src/", "acd"),
        ("src/*.py", "a"),
        ("**/deep/*", "cd"),
        ("passwd", "f"),
        ("etc/", "f"),
        ("new.txt", "d"),
        ("canonical", "e"),
        (["/b.env", "passwd"], "bf"),
        ("caf\udce9", "g"),
        ("li*ne", "h"),
        ("nowhere", ""),
    ],
)
def test_events_by_path_pattern(folder, pattern, found):
    with AuditLog(folder) as log:
        for path, more in {
            "./src//a.py": {},
            "b.env": {},
            "src/deep/c.env": {},
            "src/deep/d": {"to": "new.txt"},
            "other/e.env": {"resolved": "canonical"},
            "../../etc/passwd": {},
            "caf\udce9": {},
            "li\nne": {},
            "\ud800 that no file can have": {},
        }.items():
            deny(log, path, **more)
        letters = dict(zip((event.path for event in log.events()), "abcdefghi", strict=True))
        assert "".join(letters[event.path] for event in log.events(path=pattern)) == found


@pytest.mark.parametrize("pattern", ["", "#x", "!x", "a//b", "[", "../x"])
def test_a_pattern_that_cannot_match_is_refused(folder, pattern):
    with AuditLog(folder) as log, pytest.raises(ValueError, match=r"."):
        log.events(path=pattern)


def test_no_name_can_pose_as_a_field(folder):
    with AuditLog(folder, actor="real") as log:
        for text in ('x","op":"write","decision":"allow","layer":"watch', 'x","actor":{"name":"other"}'):
            log.record(
                "read", text, decision="deny", why=text, extra={"op": "write", "actor": {"name": "other"}}
            )
        for wanted in ({"op": "write"}, {"decision": "allow"}, {"layer": "watch"}, {"actor": "other"}):
            assert list(log.events(**wanted)) == []
        assert len(list(log.events(actor="real", op="read", layer="jail", decision="deny"))) == 2


def test_lines_in_another_order_are_asked_the_slow_way(folder):
    """Another writer's spelling of the same record; the hash does not fit, but it is read."""
    with AuditLog(folder, actor="a") as log:
        deny(log, "src/x")
        change(log, "src/y", to="z")
        path = Path(folder, "audit.jsonl")
        turned = []
        for line in path.read_bytes().splitlines():
            record = json.loads(line)
            digest = record.pop("hash")
            turned.append(json.dumps(dict(reversed(record.items())))[:-1] + f',"hash":"{digest}"}}\n')
        path.write_text("".join([*turned, '{"half":1,"hash":"' + "0" * 64 + '"}\n']))
        for wanted, found in (
            ({"op": "read"}, ["src/x"]),
            ({"decision": "allow", "layer": "jail"}, ["src/y"]),
            ({"actor": "a", "path": "z"}, ["src/y"]),
            ({"actor": "b"}, []),
            ({"since": "2999-01-01"}, []),
            ({"until": "1999-01-01"}, []),
        ):
            assert [event.path for event in log.events(**wanted)] == found


def test_the_last_events_are_read_from_behind(folder):
    with AuditLog(folder, max_bytes=3000, keep=50) as log:
        for number in range(40):
            change(log, str(number))
        assert [event.path for event in log.tail(3)[0]] == ["37", "38", "39"]
        assert log.tail(3)[1] == 40
        assert [event.path for event in log.tail(2, path="1*")[0]] == ["18", "19"]
        assert log.tail(0) == ([], 40)
        assert len(log.tail(99)[0]) == 40
        newest = Path(folder, "audit.jsonl")
        newest.write_bytes(newest.read_bytes() + b'{"torn')
        assert [event.path for event in log.tail(1)[0]] == ["39"]
        newest.write_bytes(newest.read_bytes() + b'"x","hash":"' + b"0" * 64 + b'"}\n')
        assert [event.path for event in log.tail(1)[0]] == ["39"]


@pytest.mark.parametrize("text", [b"", b"a", b"a\n", b"a\nb", b"\n", b"\n\na\n", b"x" * 300_000 + b"\ny\n"])
def test_lines_backwards_are_lines(tmp_path, text):
    (tmp_path / "x").write_bytes(text)
    with open(tmp_path / "x", "rb") as file:
        assert (
            list(lines_backwards(file.fileno(), len(text)))[::-1]
            == text.removesuffix(b"\n").split(b"\n")[: None if text else 0]
        )
        assert list(lines_backwards(file.fileno(), len(text) + 9)) is not None  # was cut meanwhile: no error


def test_a_big_log_is_read_in_flat_memory(folder):
    """In a process of its own: 20,000 records, 11 MB."""
    code = f"""
import resource, sys
from fsjail._audit import AuditLog
from fsjail._follow import Follower
log = AuditLog({folder!r})
for number in range(20_000):
    log.record("read", f"src/{{number}}", decision="deny", why="read.deny[0]")
list(zip(range(10), log.events(path="src/")))
log.tail(10)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert sum(1 for _ in log.events(path="src/")) == log.tail(5)[1] == 20_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 4096  # KiB


# Following


class Following:
    """A reader in a thread; `got` fills as records come."""

    def __init__(self, log: AuditLog, **options: Any) -> None:
        self.got: list[str] = []
        self.failed: BaseException | None = None
        self._end = threading.Event()
        self._events = log.follow(wait=lambda: self._end.wait(0.01), **options)
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        try:
            for event in self._events:
                self.got.append(event.path)
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.failed = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def until(self, count: int) -> list[str]:
        for _ in range(1000):
            if len(self.got) >= count or self.failed:
                break
            time.sleep(0.01)
        return list(self.got)


def test_following_begins_before_the_log_exists(folder):
    with AuditLog(folder) as log, Following(log) as reader:
        time.sleep(0.05)
        with AuditLog(folder) as writer:
            for number in range(5):
                change(writer, str(number))
            assert reader.until(5) == list("01234")
            change(writer, "5")
            assert reader.until(6)[-1] == "5"


def test_following_shows_some_that_are_there_already(folder):
    with AuditLog(folder) as log:
        for number in range(5):
            change(log, str(number))
        for last, shown in ((0, ""), (2, "34"), (-1, "01234"), (99, "01234")):
            with Following(log, last=last) as reader:
                assert "".join(reader.until(len(shown))) == shown
        with Following(log, last=2, denied=True) as reader:
            deny(log, "x")
            change(log, "y")
            deny(log, "z")
            assert reader.until(2) == ["x", "z"]


def test_following_goes_on_across_rotation_and_other_processes(folder):
    count, size = 3000, 20_000
    with AuditLog(folder) as log, Following(log) as reader:
        code = f"""
import sys
from fsjail._audit import AuditLog
from fsjail._follow import Follower
log = AuditLog({folder!r}, max_bytes={size}, keep=500)
for number in range({count}):
    log.record("write", sys.argv[1] + str(number), decision="allow", why="x")
"""
        writers = [subprocess.Popen([sys.executable, "-c", code, name]) for name in "ab"]
        for writer in writers:
            assert writer.wait(60) == 0
        got = reader.until(2 * count)
    assert sorted(got) == sorted(f"{name}{number}" for name in "ab" for number in range(count))
    assert [path for path in got if path[0] == "a"] == [f"a{number}" for number in range(count)]


def test_following_survives_that_its_file_was_rotated_away(folder):
    """More rotation between two looks than files are kept: what is gone is gone, the rest comes once."""
    with AuditLog(folder, max_bytes=2000, keep=2) as log:
        change(log, "first")
        events = log.follow(last=-1, wait=lambda: True)
        got = [next(events).path]
        for number in range(50):
            change(log, str(number))
        got += [event.path for event in events]
        kept = [event.path for event in log.events()]
    assert got[0] == "first"
    assert got[-len(kept) :] == kept  # before that, what was in the file that it held
    assert len(set(got)) == len(got) < 50


def test_following_survives_that_the_log_is_removed(folder):
    with AuditLog(folder) as log, Following(log, last=-1) as reader:
        change(log, "a")
        change(log, "b")
        assert reader.until(2) == ["a", "b"]
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
        time.sleep(0.05)
        change(log, "c")
        assert reader.until(3) == ["a", "b", "c"]


def test_following_a_log_that_began_anew_misses_nothing_of_it(folder):
    follower = Follower(folder)
    with AuditLog(folder) as log:
        change(log, "a")
        change(log, "b")
        assert len(list(follower.poll())) == 2
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        assert list(follower.poll()) == []
        for number in range(5):
            change(log, str(number))
        assert len(list(follower.poll())) == 5
    follower.close()


def test_following_a_torn_record_waits_for_the_rest(folder):
    with AuditLog(folder) as log:
        change(log, "a")
        line = Path(folder, "audit.jsonl").read_bytes()
        with Following(log) as reader:
            time.sleep(0.05)
            with open(os.path.join(folder, "audit.jsonl"), "ab") as file:
                file.write(line[:100])
            time.sleep(0.05)
            assert reader.got == []
            change(log, "b")  # repairs it
            assert reader.until(2) == ["audit.jsonl", "b"]


def test_following_a_cut_log_gives_nothing_twice(folder):
    with AuditLog(folder) as log:
        for number in range(4):
            change(log, str(number))
        path = Path(folder, "audit.jsonl")
        with Following(log, last=-1) as reader:
            assert len(reader.until(4)) == 4
            path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
            time.sleep(0.05)
            change(log, "after")
            assert reader.until(6) == ["0", "1", "2", "3", "audit.jsonl", "after"]


def test_following_waits_while_a_stopped_writer_holds_the_lock(folder, monkeypatch):
    monkeypatch.setattr("fsjail._logfiles._LOCK_SECONDS", 0.02)
    with AuditLog(folder) as log:
        change(log, "a")
        with Following(log) as reader:
            time.sleep(0.05)
            with open(os.path.join(folder, "lock"), "rb") as held:
                take_lock(held.fileno())
                os.rename(os.path.join(folder, "audit.jsonl"), os.path.join(folder, "audit.1.jsonl"))
                Path(folder, "audit.jsonl").touch()
                time.sleep(0.1)
            change(log, "b")
            assert reader.until(1) == ["b"]
            assert reader.failed is None


def test_following_a_log_that_becomes_a_fifo_fails_and_does_not_hang(folder):
    with AuditLog(folder) as log:
        change(log, "a")
        with Following(log) as reader:
            time.sleep(0.05)
            os.unlink(os.path.join(folder, "audit.jsonl"))
            os.mkfifo(os.path.join(folder, "audit.jsonl"))
            reader.until(1)
        assert isinstance(reader.failed, OSError)
        assert "not a readable regular file" in str(reader.failed)


def test_following_leaves_no_descriptor(folder):
    def work() -> None:
        with AuditLog(folder, max_bytes=2000, keep=3) as log:
            events = log.follow(last=-1, wait=lambda: True)
            for number in range(20):
                change(log, str(number))
            next(events)
            for number in range(20):
                change(log, str(number))
            list(events)

    work()
    before = sorted(os.listdir("/dev/fd"))
    work()
    assert sorted(os.listdir("/dev/fd")) == before


# Subscribers


def test_a_subscriber_hears_every_record_in_order(folder):
    with AuditLog(folder) as log:
        heard: list[Event] = []
        change(log, "before")
        end = log.subscribe(heard.append)
        for number in range(3):
            change(log, str(number))
        for _ in range(5):
            deny(log, "x")
        change(log, "y")
        end()
        change(log, "after")
        assert [(event.path, event.count) for event in heard] == [
            ("0", 1),
            ("1", 1),
            ("2", 1),
            ("x", 1),
            ("x", 4),
            ("y", 1),
        ]
        assert heard == list(log.events())[1:-1]


def test_a_subscriber_hears_repairs(folder):
    with AuditLog(folder) as log:
        change(log, "a")
    with open(os.path.join(folder, "audit.jsonl"), "ab") as file:
        file.write(b'{"torn')
    with AuditLog(folder, required=True) as log:
        heard: list[Event] = []
        log.subscribe(heard.append)
        log.demand()
        assert [event.why for event in heard] == ["audit: torn record"]
        change(log, "b")
        assert heard == list(log.events())[1:]


def test_a_lost_record_is_told_to_subscribers(folder, monkeypatch):
    with AuditLog(folder) as log:
        heard: list[Event] = []
        change(log, "a")
        log.subscribe(heard.append)

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            change(log, "b")
        change(log, "c")
        assert [event.path for event in heard] == ["audit.jsonl", "c"]
        assert heard[0].extra == {"lost": 1}


def test_what_a_subscriber_raises_never_reaches_the_operation(folder, caplog):
    def bad(event: Event) -> None:
        raise RuntimeError("host /secret/path")

    heard: list[Event] = []
    with AuditLog(folder) as log:
        log.subscribe(bad, closing=lambda: 1 / 0)
        log.subscribe(heard.append)
        with caplog.at_level(logging.WARNING, "fsjail"):
            assert change(log, "a") is not None
            assert change(log, "b") is not None
    assert len(heard) == 2
    assert [record.name for record in caplog.records] == ["fsjail"] * 2  # once for each that failed
    assert "RuntimeError" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_subscriber_that_makes_records_itself_does_not_go_on_forever(folder):
    with AuditLog(folder) as log:
        heard: list[str] = []

        def more(event: Event) -> None:
            heard.append(event.path)
            change(log, f"{event.path}+")

        log.subscribe(more)
        change(log, "a")
        change(log, "b")
        assert heard == ["a", "b"]
        assert [event.path for event in log.events()] == ["a", "a+", "b", "b+"]


def test_a_slow_subscriber_holds_up_one_thread_only(folder):
    with AuditLog(folder) as log:
        inside, let_go = threading.Event(), threading.Event()
        heard: list[str] = []

        def slow(event: Event) -> None:
            heard.append(event.path)
            if event.path == "slow":
                inside.set()
                let_go.wait(20)

        log.subscribe(slow)
        thread = threading.Thread(target=change, args=(log, "slow"))
        thread.start()
        assert inside.wait(20)
        for number in range(3):
            assert change(log, str(number)) is not None
        assert [event.path for event in log.events()] == ["slow", "0", "1", "2"]
        assert heard == ["slow"]
        let_go.set()
        thread.join(20)
        assert heard == ["slow", "0", "1", "2"]


def test_what_waits_for_a_subscriber_is_bounded(folder, monkeypatch):
    monkeypatch.setattr("fsjail._subscribers._MOST", 2)
    waiting = Subscribers()
    waiting.add(print, None)
    for number in range(5):
        waiting.put(number)  # type: ignore[arg-type]
    assert waiting.dropped == 3


def test_threads_tell_in_the_order_of_the_log(folder):
    with AuditLog(folder) as log:
        heard: list[int] = []
        log.subscribe(lambda event: heard.append(event.seq))
        threads = [
            threading.Thread(target=lambda name=name: [change(log, f"{name}/{n}") for n in range(200)])
            for name in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert heard == list(range(1, 801))


def test_the_end_comes_behind_the_last_record(folder):
    heard: list[Any] = []
    log = AuditLog(folder)
    log.subscribe(heard.append, closing=lambda: heard.append("end"))
    end = log.subscribe(print, closing=lambda: heard.append("never"))
    end()
    deny(log, "x")
    deny(log, "x")
    log.close()
    log.close()
    assert [one if isinstance(one, str) else one.count for one in heard] == [1, 1, "end"]


def test_a_subscriber_may_close_the_log(folder):
    log = AuditLog(folder)
    log.subscribe(lambda event: log.close())
    assert change(log, "a") is not None
    with pytest.raises(ValueError, match="closed"):
        change(log, "b")


def test_the_end_of_the_process_is_an_end_too(folder):
    code = f"""
import sys
from fsjail._audit import AuditLog
from fsjail._follow import Follower
log = AuditLog({folder!r})
log.subscribe(lambda event: print(event.path, event.count), closing=lambda: print("end"))
for _ in range(3):
    log.record("read", "x", decision="deny", why="y")
other = AuditLog({folder!r} + "2")
other.subscribe(print, closing=lambda: print("end of what was dropped"))
del other
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[:2] == ["x 1", "x 2"]
    assert sorted(found.stdout.splitlines()[2:]) == ["end", "end of what was dropped"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_tells_its_own_records_only(folder, tmp_path):
    out = tmp_path / "heard"
    with AuditLog(folder) as log:

        def write(event: Event) -> None:
            with open(out, "a", encoding="utf-8") as file:
                file.write(f"{event.path}\n")

        log.subscribe(write)
        log._subscribers.put(change(AuditLog(folder), "the parent's"))
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                change(log, "the child's")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert out.read_text() == "the child's\n"


def test_a_jail_tells_what_was_refused_and_done(base):
    with Jail(base / "root", Policy.workspace(), state=base / "state") as jail:
        heard: list[Event] = []
        jail.audit.subscribe(heard.append)
        jail.write_text("a.txt", "x")
        with pytest.raises(PermissionError):
            jail.read_text(".env")
        assert [(event.op, event.path, event.decision) for event in heard] == [
            ("write", "a.txt", "allow"),
            ("read", ".env", "deny"),
        ]


def test_a_configured_size_and_number_of_files_hold(home, tmp_path):
    (tmp_path / "fsjail.toml").write_text('[audit]\nmax_bytes = "2 KiB"\nkeep = 2\n')
    with Jail.load(tmp_path) as jail:
        for number in range(40):
            with pytest.raises(FileNotFoundError):
                jail.read_text(f"src/{number}")
            with pytest.raises(PermissionError):
                jail.read_text(f"../{number}")
        files = sorted(name for name in os.listdir(jail.audit.folder) if name.startswith("audit"))
        assert files == ["audit.1.jsonl", "audit.2.jsonl", "audit.jsonl"]
        assert all(os.path.getsize(os.path.join(jail.audit.folder, name)) <= 2048 for name in files)
        assert jail.audit.verify()


# fsjail log


def fill(project: Path) -> None:
    with log_of(project) as log, log_of(project, "other") as other:
        for number in range(3):
            change(log, f"src/{number}.py", resolved=f"src/{number}.py")
        deny(log, ".env")
        deny(log, "../../etc/passwd")
        deny(other, EVIL)
        other.record("list", "src", decision="error", why="watch: gap", layer="watch")


@pytest.mark.parametrize(
    ("args", "found"),
    [
        ("", 7),
        ("--denied", 3),
        ("--decision deny", 3),
        ("--decision error", 1),
        ("--decision allow --op write", 3),
        ("--op read --op list", 4),
        ("--layer watch", 1),
        ("--actor other", 2),
        ("--actor other --actor agent-7", 7),
        ("--path src/", 4),
        ("--path *.py --path passwd", 4),
        ("--since 1h", 7),
        ("--until 1h", 0),
        ("--since 2000-01-01 --until 2999-01-01", 7),
    ],
)
def test_log_filters(project, args, found):
    fill(project)
    for limit in ((), ("-n", "0")):
        document = json.loads(call(*args.split(), *limit, "--json"))
        assert (len(document["events"]), document["matching"]) == (found, found)
    lines = call(*args.split(), "-n", "0", "--format", "ocsf").splitlines()
    assert len(lines) == found
    assert len(call(*args.split(), "-n", "0").splitlines()) == (found or 1)
    assert len(call(*args.split()).splitlines()) == (found + 1 if found else 1)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ("--path a//b", "--path"),
        ("--path !x", "--path"),
        ("--until yesterdayish", "--until"),
        ("--decision maybe", "--decision"),
        ("--verify --summary", "--verify"),
        ("--summary --follow", "--summary"),
        ("--summary --format ocsf", "--format"),
        ("--format xml", "--format"),
        ("--export syslog", "--export"),
    ],
)
def test_log_used_wrongly_says_what_is_wrong(project, args, told):
    found = subprocess.run(
        [sys.executable, "-m", "fsjail.cli", "log", *args.split()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 2
    assert found.stdout == ""
    assert len(found.stderr.splitlines()) == 1
    assert told in found.stderr


def test_lines_are_safe_and_whole(project):
    fill(project)
    for text in (
        call("-n", "0"),
        call(),
        call("--summary"),
        call("-n", "0", "--json"),
        call("--format", "ocsf"),
    ):
        assert not {"\x1b", "\x07", "\u202e"} & set(text)
    line = call("-n", "0", "--actor", "other", "--denied").rstrip("\n")
    assert "\n" not in line
    assert r"[red]\x1b]0;owned\x07\nb\u202etxt.exe" in line
    assert line.endswith("read.deny[0]")


def test_a_summary_counts(project):
    fill(project)
    with log_of(project) as log:
        for _ in range(10):
            deny(log, ".env")
    found = json.loads(call("--summary", "--json"))
    assert found["records"] == 9
    assert found["attempts"] == {"allowed": 3, "denied": 13, "failed": 1}
    assert found["counted"] == ["denied"]
    assert found["by_rule"] == [{"rule": "read.deny[0]", "count": 13}]
    assert found["by_path"][0] == {"path": ".env", "count": 11}
    assert {item["path"]: item["count"] for item in found["by_path"]}[EVIL] == 1
    assert found["by_actor"] == [{"actor": "agent-7", "count": 12}, {"actor": "other", "count": 1}]
    assert sum(item["count"] for item in found["over_time"]) == 13
    text = call("--summary")
    assert "9 records: allowed 3, denied 13, failed 1" in text
    assert "Denied by rule\n  13  read.deny[0]\n" in text
    assert "Denied by agent\n  12  agent-7\n   1  other\n" in text
    assert "2 more: 2" in call("--summary", "-n", "1")
    assert "Failed by rule\n  1  watch: gap\n" in call("--summary", "--decision", "error")
    assert "Denied by agent\n  1  other\n" in call("--summary", "--denied", "--actor", "other")
    assert "Nothing was denied." in call("--summary", "--op", "write")
    assert "No such events." in call("--summary", "--actor", "nobody")


def test_a_summary_names_the_rule_and_its_place(project):
    with Jail.load(project, actor="a") as jail, pytest.raises(PermissionError):
        jail.read_text("private/x")
    assert "1  read.deny[0]: private/ (fsjail.toml:2)\n" in call("--summary")


def test_counting_stays_bounded(monkeypatch):
    monkeypatch.setattr("fsjail.cli._summary._MOST", 100)
    tally = Tally()
    for number in range(1000):
        tally.add("often", 1)
        tally.add(f"name {number}", 1)
    assert len(tally) <= 100
    assert tally["often"] == 1000
    assert sum(tally.values()) + tally.rest == 2000


@pytest.mark.parametrize("days", [0.0001, 0.1, 3, 400, 9000])
def test_spans_of_time_fit_the_screen(days):
    times = Times()
    start = datetime(2025, 3, 1, 12, tzinfo=UTC)
    for number in range(5000):
        times.add(start + timedelta(days=days * number / 5000), 1)
    bars = times.bars()
    assert 1 <= len(bars) <= (16 if days < 1000 else 1000)
    assert sum(count for _start, count in bars) == 5000
    assert bars[0][0] <= start < bars[0][0] + timedelta(seconds=times.seconds)
    assert Times().bars() == []


def test_forged_records_do_not_break_the_summary():
    summary = Summary(("deny",))
    fields: dict[str, Any] = dict.fromkeys(Event.__dataclass_fields__)
    summary.add(
        Event(
            **{
                **fields,
                "time": "never",
                "decision": "deny",
                "why": "x",
                "path": "p",
                "actor": {},
                "count": "x",
            }
        )
    )
    assert summary.document(10)["by_actor"] == [{"actor": "-", "count": 1}]
    summary.draw(10)
    assert _log.local("never") == "never"


# On a terminal, and as processes


def environment(**more: str) -> dict[str, str]:
    own = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    path = os.pathsep.join(filter(None, sys.path))
    return {**own, "PYTHONPATH": path, "TERM": "xterm-256color", **more}


def on_terminal(args: list[str], columns: int, **more: str) -> str:
    """Run a command with a terminal of its own for output; give what it drew."""
    pty = pytest.importorskip("pty", reason="no terminals here")
    ours, theirs = pty.openpty()
    more = {"COLUMNS": str(columns), "LINES": "50", **more}
    child = subprocess.Popen(
        [sys.executable, "-m", "fsjail.cli", "log", *args],
        env=environment(**more),
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    text = b""
    with contextlib.suppress(OSError):  # Linux tells the end so
        while block := os.read(ours, 65536):
            text += block
    os.close(ours)
    assert child.wait(60) == 0, text
    return text.decode()


@pytest.mark.parametrize("columns", [30, 60, 120])
@pytest.mark.parametrize(
    "mode", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["colour", "NO_COLOR", "dumb"]
)
def test_a_summary_on_a_terminal(project, columns, mode):
    fill(project)
    text = on_terminal(["--summary"], columns, **mode)
    assert ("\x1b[" in text) is (not mode)
    bare = text
    for code in ("\x1b[1m", "\x1b[31m", "\x1b[0m", "\x1b[2m"):
        bare = bare.replace(code, "")
    assert not {"\x1b", "\x07", "\u202e"} & set(bare)
    lines = bare.splitlines()
    assert max(map(len, lines)) <= columns or columns < 60  # what stands above the charts is a sentence
    assert ("█" in bare) is (columns >= 40)
    assert "[red]" in "".join(bare.split())
    assert any(line.startswith("Denied by rule") for line in lines)


def test_a_summary_where_there_are_no_blocks(project):
    fill(project)
    text = on_terminal(["--summary"], 80, PYTHONIOENCODING="ascii", NO_COLOR="1")
    assert "####" in text
    assert "█" not in text


class Process:
    """`fsjail log --follow` as a process; its lines as they come."""

    def __init__(self, *args: str, **options: Any) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-m", "fsjail.cli", "log", "--follow", *args],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        self._rest = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.communicate()

    def line(self) -> str:
        """The next line; within 20 s."""
        assert self.child.stdout is not None
        while "\n" not in self._rest:
            assert select.select([self.child.stdout], [], [], 20)[0], "no line in 20 s"
            block = os.read(self.child.stdout.fileno(), 65536)
            assert block, "no more lines"
            self._rest += block.decode()
        line, _, self._rest = self._rest.partition("\n")
        return line


def test_following_as_a_process(project):
    with log_of(project) as log:
        for number in range(20):
            change(log, f"src/{number}")
        with Process() as process:
            assert [process.line().split()[4] for _ in range(10)] == ["done"] * 10
            deny(log, EVIL)
            line = process.line()
            assert "denied" in line
            assert r"\x1b" in line
            process.child.send_signal(signal.SIGINT)
            out, err = process.child.communicate(timeout=20)
            assert (process.child.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize("form", ["--json", "--format=ocsf"])
def test_following_as_json_lines(project, form):
    with log_of(project) as log, Process(form, "-n", "0") as process:  # before there is a log
        time.sleep(0.3)
        change(log, "src/a")
        deny(log, "b")
        first, second = json.loads(process.line()), json.loads(process.line())
        assert (first.get("path") or first["file"]["path"]) == "src/a"
        assert (second.get("path") or second["file"]["path"]) == "b"
        process.child.terminate()
        assert process.child.wait(20) == 0


def test_following_ends_when_nobody_reads_any_more(project):
    """At once, not at the next record."""
    with log_of(project) as log:
        change(log, "a")
        with Process() as process:
            process.line()
            assert process.child.stdout is not None
            process.child.stdout.close()
            assert process.child.wait(20) == 141
            assert process.child.stderr is not None
            assert process.child.stderr.read() == ""
            process.child.stdout = None


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="where times are told in /proc")
def test_following_costs_nothing_while_nothing_comes(project):
    with log_of(project) as log:
        change(log, "a")
        with Process() as process:
            process.line()
            ticks = []
            for _ in range(2):
                fields = Path(f"/proc/{process.child.pid}/stat").read_text().rpartition(")")[2].split()
                ticks.append(int(fields[11]) + int(fields[12]))
                time.sleep(0 if len(ticks) == 2 else 3)
            used = (ticks[1] - ticks[0]) / os.sysconf("SC_CLK_TCK")
            assert used <= 0.03  # of 3 s: 1 %, and a tick is a hundredth


# Bad input


@pytest.mark.parametrize("kind", ["link", "FIFO", "directory"])
def test_a_log_that_is_no_file_is_refused(project, tmp_path, kind):
    with log_of(project) as log:
        change(log, "a")
        path = Path(log.folder, "audit.jsonl")
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    path.unlink()
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "FIFO":
        os.mkfifo(path)
    else:
        path.mkdir()
    for args in ([], ["-n0"], ["--summary"], ["--format=ocsf"], ["--json"], ["--verify"], ["--follow"]):
        assert "audit.jsonl" in call(*args, code=1)
    assert victim.read_bytes() == b"precious"
    with Process() as process:
        _out, err = process.child.communicate(timeout=30)
        assert process.child.returncode == 1
        assert err == "fsjail: audit.jsonl is not a readable regular file\n"


def test_a_damaged_head_is_told_and_the_log_still_read(project):
    fill(project)
    with log_of(project) as log:
        head = Path(log.folder, "head")
    head.write_bytes(b"rubbish")
    before = {path.name: path.read_bytes() for path in head.parent.iterdir()}
    assert "head: missing or damaged" in call("--verify", code=1)
    assert json.loads(call("--json"))["matching"] == 7
    call("--summary")
    assert {path.name: path.read_bytes() for path in head.parent.iterdir()} == before


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_state_folder_that_may_not_be_written_or_read(project, capfd):
    if os.getuid() != 0:
        pytest.skip("only root can make a folder of somebody else")
    fill(project)
    with log_of(project) as log:
        folder = log.folder
    Path(folder).parent.chmod(0o755)
    for mode, code in ((0o755, 0), (0o700, 1)):
        for path in (*Path(folder).iterdir(), Path(folder)):
            path.chmod(mode)
        for args in ([], ["--verify"], ["--summary"], ["-n", "0"], ["--follow"]):
            child = os.fork()
            if child == 0:
                status = 99
                with contextlib.suppress(BaseException):
                    os.setgroups([])
                    os.setgid(65534)
                    os.setuid(65534)
                    if "--follow" in args:
                        signal.setitimer(signal.ITIMER_REAL, 1)
                        signal.signal(signal.SIGALRM, signal.default_int_handler)
                    status = _app.run(["log", *args])
                    sys.stdout.flush()
                os._exit(status)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code, (args, capfd.readouterr())
            out, err = capfd.readouterr()
            assert bool(out) is (code == 0)
            assert ("Permission denied" in err) is (code == 1)
