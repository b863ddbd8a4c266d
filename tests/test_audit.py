"""The audit log under threads, processes, kills, forgeries and odd names."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import gc
import hashlib
import importlib.util
import json
import logging
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fsjail import _audit, _chain, _dirs, _logfiles, _redact
from fsjail._audit import AuditLog, Event, Verification

WRITER = """
import sys
from fsjail._audit import AuditLog
log = AuditLog(sys.argv[1], actor=sys.argv[2], max_bytes=int(sys.argv[4]), keep=500)
for number in range(int(sys.argv[3])):
    log.record("write", f"{number}.txt", decision="allow", why="write.allow[0]")
    if number == 0:
        print("started", flush=True)
log.close()
"""


@dataclasses.dataclass(frozen=True)
class Rule:
    pattern: str
    source: str
    line: int | None


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "state" / "log")


def deny(log: AuditLog, path: str, **more) -> Event | None:
    return log.record("read", path, decision="deny", why="read.deny[0]", **more)


def change(log: AuditLog, path: str, **more) -> Event | None:
    return log.record("write", path, decision="allow", why="write.allow[0]", **more)


def fill(folder: str, count: int, **options) -> None:
    with AuditLog(folder, **options) as log:
        for number in range(count):
            assert change(log, f"{number}.txt") is not None


def verify(folder: str) -> Verification:
    with AuditLog(folder) as log:
        return log.verify()


def lines(folder: str, name: str = "audit.jsonl") -> list[bytes]:
    return (Path(folder) / name).read_bytes().splitlines(keepends=True)


def put(folder: str, new: list[bytes], name: str = "audit.jsonl") -> None:
    (Path(folder) / name).write_bytes(b"".join(new))


def start_writer(folder: str, name: str, count: int, max_bytes: int = 2**24) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, folder, name, str(count), str(max_bytes)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
    )


# One record


def test_nothing_is_made_before_the_first_record(folder):
    with AuditLog(folder) as log:
        assert list(log.events()) == []
        assert log.verify() == Verification(ok=True, records=0, problems=())
    assert not os.path.lexists(folder)


def test_a_record_has_every_field_and_comes_back_as_it_was_returned(folder):
    log = AuditLog(folder, actor="agent-7")
    event = log.record(
        "move",
        "a.txt",
        decision="deny",
        why="write.deny[1]",
        to="b.txt",
        resolved="a.txt",
        rule=Rule("*.txt", "fsjail.toml", 3),
        errno=13,
        trash_id="t1",
        layer="watch",
        extra={"created": ["x"]},
        tool="move_file",
        call_id="c-1",
    )
    assert event is not None
    assert (event.v, event.seq, event.run, event.count) == (1, 1, log.run, 1)
    assert event.rule == {"pattern": "*.txt", "source": "fsjail.toml", "line": 3}
    assert list(event.actor) == ["name", "tool", "call_id", "pid", "exe", "argv"]
    assert (event.actor["name"], event.actor["tool"], event.actor["call_id"]) == (
        "agent-7",
        "move_file",
        "c-1",
    )
    assert (event.actor["pid"], event.actor["exe"]) == (os.getpid(), sys.executable)
    assert event.prev == "0" * 64
    assert datetime.fromisoformat(event.time).tzinfo is not None
    assert len(event.time) == len("2025-01-01T00:00:00.000000Z")
    assert list(log.events()) == [event]
    log.close()


def test_the_hash_is_what_the_documentation_says(folder):
    fill(folder, 2)
    first, second = lines(folder)
    line = second.rstrip(b"\n")
    digest = json.loads(line)["hash"]
    bare = line.replace(f',"hash":"{digest}"'.encode(), b"")
    assert json.loads(bare)["prev"] == json.loads(first)["hash"]
    assert hashlib.sha256(json.loads(first)["hash"].encode() + bare).hexdigest() == digest


def test_modes_and_files(folder):
    fill(folder, 1)
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(os.path.dirname(folder)).st_mode) == 0o700
    assert sorted(os.listdir(folder)) == ["audit.jsonl", "head", "lock"]
    for name in os.listdir(folder):
        assert stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode) == 0o600


@pytest.mark.parametrize(
    "path",
    [
        os.fsdecode(b"caf\xe9/\xff\xfe"),
        "new\nline\t\x00\x1b[31m",
        'quote" \\ ,"decision":"deny",',
        "\u2028 \U0001f600 \ud800",
        "",
    ],
)
def test_odd_names_round_trip_in_one_ascii_line(folder, path):
    with AuditLog(folder) as log:
        event = change(log, path)
        assert event is not None
        assert [found.path for found in log.events()] == [path]
        assert list(log.events(denied=True)) == []
        assert log.verify()
    (line,) = lines(folder)
    assert line.isascii()


def test_long_texts_are_cut(folder):
    with AuditLog(folder, actor="a" * 999) as log:
        event = change(log, "p" * 9999, to="t" * 9999, tool="t" * 999)
        assert event is not None
        assert (len(event.path), len(event.to or ""), len(event.actor["tool"])) == (4096, 4096, 256)
        assert list(log.events()) == [event]


def test_reads_are_wanted_only_when_all_is_recorded(folder):
    assert not AuditLog(folder).wants_reads
    assert AuditLog(folder, record="all").wants_reads


@pytest.mark.parametrize("options", [{"record": "reads"}, {"max_bytes": 0}, {"keep": 0}])
def test_wrong_options(folder, options):
    with pytest.raises(ValueError, match="must be"):
        AuditLog(folder, **options)


def test_a_closed_log_says_so(folder):
    log = AuditLog(folder)
    change(log, "a")
    log.close()
    log.close()
    for call in (lambda: change(log, "b"), log.events, log.verify):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_secrets_on_the_command_line_are_not_logged(folder, monkeypatch):
    secret = [
        "hunter2",
        "s3cr3t",
        "sk-proj-abcdef123456",
        "ghp_0123456789abcdefghij",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "d41d8cd98f00b204e9800998ecf8427e",
        "pass@word",
    ]
    shown = [
        "run",
        "/usr/lib/python3.11/site-packages/some_long_folder_name/File2024.py",
        "--author=ann",
        "-v",
    ]
    argv = [
        *shown,
        "--token",
        secret[0],
        f"--db-password={secret[1]}",
        secret[2],
        f"x={secret[3]}",
        secret[4],
        secret[5],
        f"https://user:{secret[6]}@host/path",
        "-u",
        f"ann:{secret[0]}",
        f"Authorization: Bearer {secret[1]}",
        "--api-key",
        "-starts-with-a-dash",
        "z" * 5000,
    ]
    monkeypatch.setattr(sys, "argv", [*argv, *["more"] * 50])
    with AuditLog(folder) as log:
        event = change(log, "a")
    assert event is not None
    logged = event.actor["argv"]
    assert logged[: len(shown)] == shown
    assert len(logged) == 32
    assert max(map(len, logged)) == 256
    text = Path(folder, "audit.jsonl").read_text()
    assert [one for one in [*secret, "-starts-with"] if one in text] == []
    assert "https://[redacted]@host/path" in text


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["--password", "--verbose"], ["--password", "--verbose"]),
        (["--user", "plain"], ["--user", "plain"]),
        (["--author", "ann"], ["--author", "ann"]),
        (["deadbeef" * 4], ["[redacted]"]),
        (["--authorization", "x"], ["--authorization", "[redacted]"]),
        (["--pass=x"], ["--pass=[redacted]"]),
        (["x?sig=abc"], ["x?sig=[redacted]"]),
        (["sshpass", "-p", "geheim", "ssh"], ["sshpass", "-p", "[redacted]", "ssh"]),
        (["curl", "-uann:geheim"], ["curl", "-u[redacted]"]),
        (["tool", "-p", "8080"], ["tool", "-p", "8080"]),
        (["tool", "-p8080", "--author=ann", "design: x"], ["tool", "-p8080", "--author=ann", "design: x"]),
        (["a-long-name-in-words-and-nothing-random"], ["a-long-name-in-words-and-nothing-random"]),
    ],
)
def test_only_what_looks_secret_is_redacted(monkeypatch, argv, shown):
    monkeypatch.setattr(sys, "argv", argv)
    assert _redact.argv() == shown


GHP = "ghp_" + "0123456789abcdefghij" * 2
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
SECRETS = [
    (f"open {GHP}", GHP),
    ("token=hunter2", "hunter2"),
    ("curl --password hunter2 https://x", "hunter2"),
    ("curl -H 'Authorization: Bearer abcdef123456'", "abcdef123456"),
    ("authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
    ("https://ann:hunter2@host/x", "hunter2"),
    ("https://host/x?access_token=hunter2&y=1", "hunter2"),
    ('{"api_key": "hunter 2 and more"}', "hunter 2"),
    ("PGPASSWORD='hunter 2' psql", "hunter 2"),
    ("Cookie: sid=hunter2", "hunter2"),
    ("AKIAIOSFODNN7EXAMPLE", "IOSFODNN7"),
    ("sk-ant-api03-abcdefghijklmnop", "abcdefghijklmnop"),
    ("sk-proj-Abcdefghij0123456789", "Abcdefghij"),
    (JWT, "eyJzdWIi"),
    ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk", "b3BlbnNzaC1rZXk"),
    ("xoxb-1234567890-abcdefghij", "abcdefghij"),
    ("glpat-abcdefghij0123456789", "abcdefghij"),
]


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_secrets_in_messages_and_facts_are_not_logged(folder, text, secret):
    with AuditLog(folder) as log:
        event = log.record(
            "open",
            "x",
            decision="deny",
            why=f"guard: {text}",
            layer="guard",
            extra={"message": text, "deep": [{"said": text}], "argv": ["x", text]},
        )
        assert list(log.events()) == [event]
    assert secret not in Path(folder, "audit.jsonl").read_text()
    assert "[redacted]" in event.why


@pytest.mark.parametrize(
    ("text", "secret"), [one for one in SECRETS if one[0][:3] in {"ope", "AKI", "eyJ", "sk-"}]
)
def test_tokens_in_a_refused_path_are_not_logged(folder, text, secret):
    with AuditLog(folder) as log:
        event = deny(log, f"a/{text}/b", to=text, resolved=text)
        assert secret not in Path(folder, "audit.jsonl").read_text()
        assert event is not None
        assert event.path.startswith("a/")
        assert event.path.endswith("/b")


def test_a_fact_under_a_telling_name_goes_whole(folder):
    with AuditLog(folder) as log:
        event = log.record(
            "exec",
            "x",
            decision="deny",
            why="guard",
            layer="guard",
            extra={"password": "hunter2", "argv": ["mysql", "-phunter2", "--user", "ann:hunter2"], "pid": 7},
        )
    assert event is not None
    assert event.extra == {
        "password": "[redacted]",
        "argv": ["mysql", "-p[redacted]", "--user", "[redacted]"],
        "pid": 7,
    }


def test_what_looks_secret_cannot_hide_where_an_attempt_went(folder):
    with AuditLog(folder) as log:
        for path in ("Bearer ../../../etc/shadow", "password=../../etc/shadow", "--token ../../etc/shadow"):
            event = deny(log, path)
            assert event is not None
            assert event.path == path
        event = deny(log, f"{GHP}/../../etc/shadow")
        assert event is not None
        assert event.path == "[redacted]/../../etc/shadow"


@pytest.mark.parametrize(
    "label",
    [
        "read.deny[0] on notes/sk-learn-guide-for-beginners-2024.md",
        "preset secrets[2] on secrets/token.txt",
        "write.allow: no rule",
        "jail: outside",
        "audit: records missing",
        "read.deny[0] on src/author:ann/x",
    ],
)
def test_labels_stay_as_they_are(folder, label):
    with AuditLog(folder) as log:
        event = log.record("read", "x", decision="deny", why=label)
        assert event is not None
        assert event.why == label


def test_what_was_done_keeps_its_names(folder):
    """Undo takes them from the log."""
    with AuditLog(folder) as log:
        event = change(log, f"keys/{GHP}", to=GHP, extra={"token=x": "token=x"})
        assert event is not None
        assert (event.path, event.to, event.extra) == (f"keys/{GHP}", GHP, {"token=x": "token=x"})


@pytest.mark.parametrize(
    "piece",
    [
        "token",
        "sk-",
        "eyJ",
        "a=b",
        "gh",
        "://a:",
        "--a ",
        "bearer ",
        "-----BEGIN ",
        "SG.",
        "xoxb-",
        "a: ",
        "sk-a1",
        "'",
    ],
)
def test_no_text_keeps_the_redaction_busy(piece):
    text = piece * (8192 // len(piece))
    started = time.process_time()
    for call in (_redact.message, _redact.name, lambda text: _redact.argv([text] * 32)):
        call(text)
    assert time.process_time() - started < 2  # linear: some milliseconds; quadratic: minutes


# Reading


def test_events_filter_by_decision_actor_and_time(folder):
    with AuditLog(folder, actor="a") as one, AuditLog(folder, actor="b") as two:
        deny(one, "1")
        change(two, "2")
        middle = deny(two, "3", extra={"decision": "deny"})
        change(one, "4", extra={"decision": "deny"})
        assert middle is not None

        def paths(**query) -> str:
            return "".join(event.path for event in one.events(**query))

        assert paths() == "1234"
        assert paths(denied=True) == "13"
        assert paths(denied=False) == "24"
        assert paths(actor="b") == "23"
        moment = datetime.fromisoformat(middle.time)
        assert paths(since=middle.time) == "34"
        assert paths(since=moment) == "34"
        assert paths(since=moment.astimezone().replace(tzinfo=None)) == "34"
        assert paths(since=datetime.now(UTC) + timedelta(hours=1)) == ""
        assert paths(since=time.time() - 3600) == "1234"
        with pytest.raises(ValueError, match="isoformat"):
            one.events(since="yesterday")


def test_events_of_a_damaged_log_leave_out_the_damage(folder):
    fill(folder, 3)
    whole = lines(folder)
    put(folder, [whole[0], b"{}\n", b"[" * 100_000 + b"\n", b'{"seq":"1"}\n', whole[2]])
    with AuditLog(folder) as log:
        assert [event.seq for event in log.events()] == [1, 3]


# Threads, processes, forks


def test_threads_write_one_chain(folder):
    with AuditLog(folder) as log:

        def work(name: int) -> None:
            for number in range(500):
                assert change(log, f"{name}/{number}") is not None

        threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert log.verify() == Verification(ok=True, records=2000, problems=())
        assert len({event.path for event in log.events()}) == 2000


@pytest.mark.parametrize("max_bytes", [2**24, 100_000], ids=["one file", "rotating"])
def test_four_processes_write_one_chain(folder, max_bytes):
    writers = [start_writer(folder, f"w{number}", 5000, max_bytes) for number in range(4)]
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    assert verify(folder) == Verification(ok=True, records=20_000, problems=())
    assert (len(os.listdir(folder)) > 10) == (max_bytes < 2**24)
    with AuditLog(folder) as log:
        for name in ("w0", "w1", "w2", "w3"):
            assert [event.path for event in log.events(actor=name)] == [f"{n}.txt" for n in range(5000)]


def test_reading_while_others_write_and_rotate_sees_whole_chains(folder):
    writers = [start_writer(folder, f"w{number}", 600, 50_000) for number in range(2)]
    try:
        with AuditLog(folder) as log:
            while any(writer.poll() is None for writer in writers):
                assert log.verify().problems == ()
                seqs = [event.seq for event in log.events()]
                assert seqs == list(range(1, len(seqs) + 1))
    finally:
        for writer in writers:
            writer.communicate()
    assert verify(folder).records == 1200


def test_a_reader_that_comes_before_the_first_writer_sees_a_whole_chain(folder, monkeypatch):
    os.makedirs(folder)
    add = _logfiles.Snapshot._add

    def beaten(self, name, at):
        add(self, name, at)
        monkeypatch.undo()
        fill(folder, 3)  # between the look at the log and the look at the head

    monkeypatch.setattr(_logfiles.Snapshot, "_add", beaten)
    assert verify(folder) == Verification(ok=True, records=3, problems=())


def test_a_reader_that_is_always_beaten_says_so_and_calls_nothing_in_order(folder, monkeypatch):
    os.makedirs(folder)
    lock = Path(folder, "lock")
    take = _logfiles.Snapshot._take

    def beaten(self) -> bool:
        lock.unlink(missing_ok=True)
        return take(self)

    def made_late(self, name, at) -> None:
        lock.touch()

    monkeypatch.setattr(_logfiles.Snapshot, "_take", beaten)
    monkeypatch.setattr(_logfiles.Snapshot, "_add", made_late)
    with pytest.raises(OSError, match="lock keeps coming and going"):
        verify(folder)


def test_a_file_that_shrinks_under_a_reader_ends_its_lines(tmp_path):
    (tmp_path / "log").write_bytes(b"one\ntw")
    with open(tmp_path / "log", "rb") as file:
        assert list(_logfiles.read_lines(file.fileno(), 1000)) == [b"one", b"tw"]


def test_a_log_without_its_lock_can_be_read(folder):
    fill(folder, 3)
    os.unlink(os.path.join(folder, "lock"))
    assert verify(folder) == Verification(ok=True, records=3, problems=())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_goes_on_with_the_same_log(folder):
    with AuditLog(folder) as log:
        change(log, "before")
        deny(log, "flood")
        deny(log, "flood")
        held = threading.Event()
        let_go = threading.Event()

        def hold() -> None:
            with log._lock:
                held.set()
                let_go.wait(10)

        thread = threading.Thread(target=hold)  # its lock must not be inherited as taken
        thread.start()
        held.wait(10)
        child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                for number in range(200):
                    change(log, f"child {number}")
                log.close()
                status = 0
            os._exit(status)
        let_go.set()
        thread.join()
        for number in range(200):
            change(log, f"parent {number}")
        assert os.waitpid(child, 0)[1] == 0
        assert log.verify().problems == ()
        events = list(log.events())
    assert len(events) == 1 + 2 + 400
    assert {event.actor["pid"] for event in events if event.path.startswith("child")} == {child}
    assert sum(event.path == "flood" for event in events) == 2  # the count is the parent's alone


def test_after_a_fork_nothing_is_shared(folder):
    with AuditLog(folder) as log:
        change(log, "before")
        deny(log, "flood")
        deny(log, "flood")
        lock = log._lock
        _audit._forked()  # as the child runs it
        assert log._lock is not lock
        assert log._chain._lock == -1
        change(log, "after")
        assert [event.path for event in log.events()] == ["before", "flood", "after"]
        assert log.verify()


def test_a_signal_handler_that_logs_does_not_deadlock(folder, monkeypatch):
    with AuditLog(folder) as log:
        append = log._chain.append
        nested = []

        def interrupted(fields: str):
            monkeypatch.setattr(log._chain, "append", append)
            nested.append(change(log, "from the handler"))
            assert [event.path for event in log.events()] == []
            return append(fields)

        monkeypatch.setattr(log._chain, "append", interrupted)
        assert change(log, "a") is not None
        change(log, "b")
        assert nested == [None]
        assert [event.path for event in log.events()] == ["a", "audit.jsonl", "b"]
        assert log.verify()


def test_closing_inside_a_call_closes_when_the_call_ends(folder, monkeypatch):
    log = AuditLog(folder)
    append = log._chain.append

    def interrupted(fields: str):
        log.close()
        return append(fields)

    monkeypatch.setattr(log._chain, "append", interrupted)
    assert change(log, "a") is not None
    assert log._chain._log == -1
    assert verify(folder).records == 1


def test_descriptors_do_not_leak(folder, tmp_path):
    def work() -> None:
        with AuditLog(folder, max_bytes=2000, keep=2) as log:
            for number in range(10):
                change(log, str(number))
            next(log.events()).seq  # noqa: B018 - a reader that stops early
            log.verify()
        change(AuditLog(folder), "never closed")
        for bad in ("lock", "audit.jsonl", "head"):
            broken = tmp_path / f"broken {bad}"
            broken.mkdir(exist_ok=True)
            (broken / bad).mkdir(exist_ok=True)
            with AuditLog(str(broken)) as log:
                change(log, "a")
                change(log, "b")
        gc.collect()

    work()
    before = sorted(os.listdir("/dev/fd"))
    threads = threading.active_count()
    for _ in range(5):
        work()
    assert sorted(os.listdir("/dev/fd")) == before
    assert threading.active_count() == threads


# Kills and torn records


def test_a_killed_writer_leaves_a_chain_that_goes_on(folder):
    for turn in range(5):
        writer = start_writer(folder, f"w{turn}", 10**9, 200_000)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"started\n"
        time.sleep(0.03 * turn)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        with AuditLog(folder, max_bytes=200_000, keep=500) as log:
            assert change(log, f"after {turn}") is not None
            assert log.verify().ok
    with AuditLog(folder) as log:
        assert sum(event.path.startswith("after") for event in log.events()) == 5


def test_plain_appending_tears_a_line_and_spoils_the_next(tmp_path):
    path = tmp_path / "plain.jsonl"
    child = os.fork()
    if child == 0:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, b'{"seq": 1, "pa')  # as much as a kill lets through
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"seq": 2}\n')
    with pytest.raises(ValueError, match="delimiter"):
        [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_kill_9_in_the_middle_of_a_record_25_times(folder):
    """Every turn kills a real writer at another byte of its record; rotation is going on meanwhile."""
    turns, whole = 25, 3

    def die(turn: int) -> None:
        log = AuditLog(folder, max_bytes=4000, keep=500)
        for number in range(whole):
            change(log, f"{turn}/{number}")
        write = os.write

        def cut_short(fd: int, data: bytes) -> int:
            write(fd, data[: turn * len(data) // (turns - 1)])
            os.kill(os.getpid(), signal.SIGKILL)
            return 0

        os.write = cut_short
        change(log, f"{turn}/torn")

    for turn in range(turns):
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                die(turn)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        with AuditLog(folder, max_bytes=4000, keep=500) as log:
            assert change(log, f"{turn}/after") is not None
            found = log.verify()
            assert found.ok
    assert len(found.problems) == turns - 2  # nothing came through, and all of it
    assert all("a torn record of" in problem for problem in found.problems)
    with AuditLog(folder) as log:
        events = list(log.events())
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        kept = [event.path for event in events if event.layer == "jail"]
        repairs = [event for event in events if event.op == "repair"]
    expected = [f"{turn}/{name}" for turn in range(turns) for name in (*range(whole), "after")]
    assert [path for path in kept if not path.endswith("torn")] == expected
    assert [path for path in kept if path.endswith("torn")] == [f"{turns - 1}/torn"]
    assert len(repairs) == turns - 2


@pytest.mark.parametrize("left", [1, 100, -2], ids=["one byte", "a part", "almost all"])
def test_a_torn_record_is_reported_and_repaired(folder, left):
    fill(folder, 3)
    head = Path(folder, "head").read_bytes()
    fill(folder, 1)
    *whole, last = lines(folder)
    put(folder, [*whole, last[:left]])
    Path(folder, "head").write_bytes(head)  # the kill came before the head
    found = verify(folder)
    assert not found
    assert found.problems == ("audit.jsonl, line 4: not a record (torn or damaged), after seq 3",)
    with AuditLog(folder) as log:
        assert change(log, "after") is not None
        change(log, "later")
        found = log.verify()
        assert found.ok
        assert found.problems[0].startswith("audit.jsonl, line 4: a torn record of ")
        assert [event.op for event in log.events()] == ["write"] * 3 + ["repair", "write", "write"]


def test_a_torn_end_longer_than_one_look_is_repaired(folder):
    fill(folder, 3)
    with open(os.path.join(folder, "audit.jsonl"), "ab") as file:
        file.write(b"x" * 200_000)
    fill(folder, 1)
    found = verify(folder)
    assert found.ok
    assert found.problems == ("audit.jsonl, line 4: a torn record of 200000 bytes, repaired by seq 4",)


def test_a_record_that_lacks_only_its_newline_counts(folder):
    fill(folder, 2)
    head = Path(folder, "head").read_bytes()
    fill(folder, 1)
    data = b"".join(lines(folder))
    Path(folder, "audit.jsonl").write_bytes(data[:-1])
    Path(folder, "head").write_bytes(head)
    assert verify(folder) == Verification(ok=True, records=3, problems=())
    fill(folder, 1)
    assert verify(folder) == Verification(ok=True, records=4, problems=())


def test_a_kill_before_the_head_costs_nothing(folder):
    fill(folder, 2)
    head = Path(folder, "head").read_bytes()
    fill(folder, 1)
    Path(folder, "head").write_bytes(head)
    assert verify(folder) == Verification(ok=True, records=3, problems=())
    fill(folder, 1)
    assert verify(folder) == Verification(ok=True, records=4, problems=())


def test_a_kill_in_the_middle_of_a_rotation_costs_nothing(folder):
    fill(folder, 5)
    os.rename(os.path.join(folder, "audit.jsonl"), os.path.join(folder, "audit.1.jsonl"))
    assert verify(folder).problems == ()
    fill(folder, 5)
    os.rename(os.path.join(folder, "audit.1.jsonl"), os.path.join(folder, "audit.2.jsonl"))
    assert verify(folder) == Verification(ok=True, records=10, problems=())
    with AuditLog(folder, max_bytes=1, keep=2) as log:
        assert change(log, "rotates") is not None
        assert log.verify().problems == ()


def test_a_full_disk_leaves_no_part_of_a_record_and_is_told_later(folder, monkeypatch):
    fill(folder, 1)
    size = os.path.getsize(os.path.join(folder, "audit.jsonl"))
    write = os.write
    with AuditLog(folder) as log:
        parts = iter([10])

        def full(fd: int, data: bytes) -> int:
            part = next(parts, None)
            if part is None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(fd, data[:part])

        monkeypatch.setattr(os, "write", full)
        assert change(log, "a") is None
        assert change(log, "b") is None
        assert log.problem == "the audit log cannot be written: No space left on device"
        assert os.path.getsize(os.path.join(folder, "audit.jsonl")) == size
        monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:100]))  # short, but going on
        assert change(log, "c") is not None
        monkeypatch.undo()
        assert [event.path for event in log.events()] == ["0.txt", "audit.jsonl", "c"]
        assert [event.extra for event in log.events() if event.op == "repair"] == [{"lost": 2}]
        found = log.verify()
        assert found.ok
        assert found.problems == ("audit.jsonl, line 2, seq 2: 2 records before it could not be written",)


def test_a_head_that_cannot_be_written_does_not_break_the_chain(folder, monkeypatch):
    with AuditLog(folder) as log:
        change(log, "a")

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "pwrite", full)
        assert change(log, "b") is None
        monkeypatch.undo()
        assert change(log, "c") is not None
        assert log.verify().ok


def test_a_kill_between_the_first_record_and_its_head_costs_nothing(folder, monkeypatch):
    head_lines = []
    pwrite = os.pwrite

    def killed(fd: int, data: bytes, at: int) -> int:
        head_lines.append(data)
        if len(head_lines) > 1:
            raise KeyboardInterrupt
        return pwrite(fd, data, at)

    monkeypatch.setattr(os, "pwrite", killed)
    with AuditLog(folder) as log:
        with pytest.raises(KeyboardInterrupt):
            change(log, "a")
        monkeypatch.undo()
        assert log.verify() == Verification(ok=True, records=1, problems=())
    fill(folder, 1)
    assert verify(folder) == Verification(ok=True, records=2, problems=())


def test_a_kill_while_an_old_file_is_removed_costs_nothing(folder, monkeypatch):
    fill(folder, 40, max_bytes=3000, keep=3)
    unlink = os.unlink

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def killed_after(path: str, *, dir_fd: int) -> None:
        unlink(path, dir_fd=dir_fd)
        raise KeyboardInterrupt

    for kill in (killed, killed_after):
        monkeypatch.setattr(os, "unlink", kill)
        with pytest.raises(KeyboardInterrupt):
            fill(folder, 40, max_bytes=3000, keep=3)
        monkeypatch.undo()
        assert verify(folder).problems == ()


# Forgeries


def edited(all_lines: list[bytes]) -> list[bytes]:
    return [*all_lines[:4], all_lines[4].replace(b'"4.txt"', b'"9.txt"'), *all_lines[5:]]


def rehashed(all_lines: list[bytes]) -> list[bytes]:
    line = all_lines[4].replace(b'"4.txt"', b'"9.txt"')
    found = json.loads(line)
    bare = line.rstrip(b"\n").replace(f',"hash":"{found["hash"]}"'.encode(), b"")
    digest = hashlib.sha256(found["prev"].encode() + bare).hexdigest()
    return [*all_lines[:4], bare[:-1] + f',"hash":"{digest}"}}\n'.encode(), *all_lines[5:]]


FORGERIES = {
    "edited": (edited, "line 5, seq 5: edited"),
    "rehashed": (rehashed, "line 6, seq 6: does not follow the record before it, which was replaced"),
    "dropped": (lambda all_: all_[:4] + all_[5:], "line 5, seq 6: seq 5 to 5 are missing before it"),
    "front": (lambda all_: all_[2:], "line 1, seq 3: seq 1 to 2 are missing before it"),
    "swapped": (
        lambda all_: [*all_[:4], all_[5], all_[4], *all_[6:]],
        "line 5, seq 6: seq 5 to 5 are missing before it",
    ),
    "doubled": (lambda all_: [*all_[:5], all_[4], *all_[5:]], "line 6, seq 5: out of order"),
    "cut": (lambda all_: all_[:-2], "seq 9 to 10 are missing at the end (cut)"),
    "emptied": (lambda _: [], "seq 1 to 10 are missing at the end (cut)"),
    "garbage": (
        lambda all_: [*all_[:4], b"x\n", *all_[5:]],
        "line 5: not a record (torn or damaged), after seq 4",
    ),
}


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_forgery_is_found_and_stays_found(folder, kind):
    fill(folder, 10)
    assert verify(folder)
    forge, problem = FORGERIES[kind]
    put(folder, forge(lines(folder)))
    found = verify(folder)
    assert not found
    assert problem in found.problems[0]
    # Going on with the log must not heal it.
    fill(folder, 3)
    assert not verify(folder)
    with AuditLog(folder) as log:
        assert [event.path for event in log.events() if event.op == "write"][-3:] == [
            "0.txt",
            "1.txt",
            "2.txt",
        ]


def test_a_forgery_under_an_open_log_is_found(folder):
    with AuditLog(folder) as log:
        for number in range(5):
            change(log, f"{number}.txt")
        put(folder, lines(folder)[:-1])
        assert not log.verify()
        change(log, "after")
        assert "seq 5 to 5 are missing before it" in log.verify().problems[0]


def test_a_chain_with_an_invented_beginning_is_found(folder):
    fill(folder, 1)
    (line,) = lines(folder)
    found = json.loads(line)
    bare = line.rstrip(b"\n").replace(f',"hash":"{found["hash"]}"'.encode(), b"")
    bare = bare.replace(b"0" * 64, b"1" * 64)
    digest = hashlib.sha256(b"1" * 64 + bare).hexdigest()
    put(folder, [bare[:-1] + f',"hash":"{digest}"}}\n'.encode()])
    assert verify(folder).problems[0] == "audit.jsonl, line 1, seq 1: does not begin the chain"


def test_many_problems_are_not_all_told(folder):
    fill(folder, 1)
    put(folder, [*lines(folder), *[b"rubbish\n"] * 200])
    found = verify(folder)
    assert not found
    assert len(found.problems) == 50


def test_the_last_record_replaced_in_place_is_found(folder):
    fill(folder, 4)
    *rest, last = lines(folder)
    put(folder, [*rest, last.replace(b'"3.txt"', b'"9.txt"')])
    assert "line 4, seq 4: edited" in verify(folder).problems[0]
    put(folder, [*rest, last.replace(b'"3.txt"', b'"99.txt"')])
    fill(folder, 1)
    assert not verify(folder)


HALF = b'{"v":1,"first":                   1,"seq":                   3,"si'


@pytest.mark.parametrize(
    "head", [None, b"", b"rubbish\n", b'{"first":1,"seq":1,"size":1,"hash":"x"}\n', HALF, b"x" * 9000]
)
def test_a_missing_head_is_a_problem_for_good(folder, head):
    fill(folder, 3)
    os.unlink(os.path.join(folder, "head"))
    if head is not None:
        Path(folder, "head").write_bytes(head)
    put(folder, lines(folder)[:-1])
    assert verify(folder).problems == ("head: missing or damaged, so a cut of the tail would not show",)
    fill(folder, 1)
    assert "the head was missing here" in verify(folder).problems[0]
    fill(folder, 1)
    with AuditLog(folder) as log:
        (repair,) = [event for event in log.events() if event.op == "repair"]  # told once, not at every start
    digest = None if not head else hashlib.sha256(head).hexdigest()
    assert repair.extra == ({} if not head else {"bytes": len(head), "sha256": digest})


def test_a_head_of_another_chain_is_found(folder):
    fill(folder, 3)
    head = json.loads(Path(folder, "head").read_bytes())
    Path(folder, "head").write_bytes(json.dumps({**head, "seq": 2}).encode())
    assert "the record with seq 2 and its hash is not in the log" in verify(folder).problems[0]


def test_types_that_no_record_has_do_not_break_the_reader(folder):
    fill(folder, 2)
    first, second = lines(folder)
    rotten = [
        first.replace(b'"seq":1', b'"seq":"1"'),
        first.replace(b'"extra":null', b'"extra":[1]'),
        first.replace(b'"actor":{', b'"actor":7,"x":{'),
        first.replace(b'"seq":1', b'"seq":' + b"1" * 5000),
        b"\xff" + first,
        second.replace(b'"prev":"', b'"prev":"\\ud800'),
    ]
    put(folder, rotten)
    assert len(verify(folder).problems) >= 5
    with AuditLog(folder) as log:
        assert len(list(log.events())) == 1


# Rotation


def test_rotation_links_the_files_and_keeps_some(folder):
    fill(folder, 40, max_bytes=3000, keep=3)
    assert sorted(os.listdir(folder)) == [
        "audit.1.jsonl",
        "audit.2.jsonl",
        "audit.3.jsonl",
        "audit.jsonl",
        "head",
        "lock",
    ]
    for name in ("audit.1.jsonl", "audit.jsonl"):
        assert os.path.getsize(os.path.join(folder, name)) <= 3000
    newer = json.loads(lines(folder, "audit.1.jsonl")[0])
    older = json.loads(lines(folder, "audit.2.jsonl")[-1])
    assert newer["prev"] == older["hash"]
    found = verify(folder)
    assert found.problems == ()
    with AuditLog(folder) as log:
        seqs = [event.seq for event in log.events()]
    assert seqs == list(range(41 - len(seqs), 41))
    assert found.records == len(seqs) < 40


def test_a_smaller_keep_removes_more(folder):
    fill(folder, 60, max_bytes=3000, keep=50)
    fill(folder, 10, max_bytes=3000, keep=1)
    assert sorted(os.listdir(folder)) == ["audit.1.jsonl", "audit.jsonl", "head", "lock"]
    assert verify(folder).problems == ()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_rotated_file_that_was_removed_is_found(folder, number):
    fill(folder, 40, max_bytes=3000, keep=3)
    os.unlink(os.path.join(folder, f"audit.{number}.jsonl"))
    assert "are missing before it" in verify(folder).problems[0]


def test_emptied_files_do_not_hide_where_the_chain_ended(folder):
    fill(folder, 40, max_bytes=3000, keep=3)
    last = json.loads(lines(folder, "audit.2.jsonl")[-1])
    for name in ("audit.jsonl", "audit.1.jsonl"):
        put(folder, [], name)
    os.unlink(os.path.join(folder, "head"))
    fill(folder, 1)
    repair, after = map(json.loads, lines(folder))
    assert (repair["op"], repair["why"]) == ("repair", "audit: head missing")
    assert (repair["seq"], repair["prev"]) == (last["seq"] + 1, last["hash"])
    assert after["seq"] == repair["seq"] + 1
    assert "the head was missing here" in verify(folder).problems[0]


def test_a_rotated_file_that_is_a_link_is_not_read(folder, tmp_path):
    fill(folder, 40, max_bytes=3000, keep=3)
    os.rename(os.path.join(folder, "audit.2.jsonl"), tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", os.path.join(folder, "audit.2.jsonl"))
    assert "audit.2.jsonl: not a readable regular file" in verify(folder).problems
    with AuditLog(folder) as log, pytest.raises(OSError, match=r"audit\.2\.jsonl"):
        list(log.events())


# What cannot be written


def plant(kind: str, name: str, folder: str, victim: Path) -> None:
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name)
    if kind == "link":
        os.symlink(victim, path)
    elif kind == "dangling":
        os.symlink(victim.with_name("nowhere"), path)
    elif kind == "FIFO":
        os.mkfifo(path)
    else:
        os.mkdir(path)


@pytest.mark.parametrize("name", ["audit.jsonl", "head", "lock"])
@pytest.mark.parametrize("kind", ["link", "dangling", "FIFO", "directory"])
def test_a_planted_file_is_refused_and_untouched(folder, tmp_path, caplog, kind, name):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    plant(kind, name, folder, victim)
    with caplog.at_level(logging.WARNING, "fsjail"), AuditLog(folder) as log:
        assert change(log, "a") is None
        assert change(log, "b") is None
        assert log.problem is not None
        assert name in log.problem
        assert folder not in log.problem
    assert len(caplog.records) == 1
    assert folder in caplog.text
    assert victim.read_bytes() == b"precious"
    assert sorted(os.listdir(tmp_path)) == ["state", "victim"]
    with AuditLog(folder, required=True) as log:
        with pytest.raises(OSError, match="the audit log cannot be written") as caught:
            change(log, "a")
        assert caught.value.errno == errno.EIO
        assert folder not in str(caught.value)


@pytest.mark.parametrize("kind", ["link", "FIFO", "directory"])
def test_a_planted_file_does_not_hang_a_reader(folder, tmp_path, kind):
    fill(folder, 1)
    for name in ("head", "audit.jsonl"):
        os.unlink(os.path.join(folder, name))
        plant(kind, name, folder, tmp_path / "victim")
        assert not verify(folder)
    with AuditLog(folder) as log:
        with pytest.raises(OSError, match=r"audit\.jsonl is not a readable regular file"):
            list(log.events())
        os.unlink(os.path.join(folder, "lock"))
        plant(kind, "lock", folder, tmp_path / "victim")
        for look in (log.verify, lambda: list(log.events()), lambda: log.tail(3), lambda: next(log.follow())):
            with pytest.raises(OSError, match="lock"):
                look()


@pytest.mark.parametrize("kind", ["link", "file", "FIFO"])
def test_a_folder_that_is_none_is_refused(folder, tmp_path, kind):
    os.makedirs(os.path.dirname(folder))
    if kind == "link":
        os.symlink(tmp_path, folder)
    elif kind == "file":
        Path(folder).write_bytes(b"precious")
    else:
        os.mkfifo(folder)
    with AuditLog(folder + "/", required=True) as log, pytest.raises(OSError, match="cannot be written"):
        change(log, "a")
    assert os.listdir(tmp_path) == ["state"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_folder_without_permission(folder, tmp_path):
    if os.getuid() != 0:
        pytest.skip("only root can make a folder of somebody else")
    os.makedirs(folder, mode=0o700)
    os.chmod(folder, 0o500)
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            log = AuditLog(folder)
            assert change(log, "a") is None
            assert log.problem == "the audit log cannot be written: Permission denied"
            with pytest.raises(OSError, match="Permission denied") as caught:
                change(AuditLog(folder, required=True), "a")
            assert not isinstance(caught.value, PermissionError)
            assert str(tmp_path) not in str(caught.value)
            status = 0
        os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_a_removed_folder_is_made_anew(folder):
    with AuditLog(folder) as log:
        change(log, "a")
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
        assert change(log, "b") is not None
        assert [event.path for event in log.events()] == ["b"]
        assert log.verify()


def test_a_lock_that_keeps_vanishing_is_a_problem(folder, monkeypatch):
    def vanishing(fd: int) -> None:
        os.unlink(os.path.join(folder, "lock"))

    monkeypatch.setattr(_chain, "take_lock", vanishing)
    with AuditLog(folder) as log:
        assert change(log, "a") is None
        assert log.problem == "the audit log cannot be written: the lock file keeps vanishing"


def test_a_lock_that_is_never_given_up_is_a_problem(folder, monkeypatch):
    monkeypatch.setattr(_logfiles, "_LOCK_SECONDS", 0.05)
    fill(folder, 1)
    with AuditLog(folder) as log, open(os.path.join(folder, "lock"), "rb") as held:
        _logfiles.take_lock(held.fileno())
        assert change(log, "a") is None
        assert log.problem == "the audit log cannot be written: another process does not give up the lock"
        with pytest.raises(OSError, match="lock"):
            log.verify()


# Floods


def test_a_flood_is_counted(folder):
    with AuditLog(folder) as log:
        first = deny(log, "x")
        assert first is not None
        assert first.count == 1
        assert [deny(log, "x") for _ in range(10)] == [None] * 10
        change(log, "y")
        assert [(event.path, event.count) for event in log.events()] == [("x", 1), ("x", 10), ("y", 1)]


@pytest.mark.parametrize("end", ["close", "events", "verify", "exit"])
def test_a_flood_ends_when_somebody_looks(folder, end):
    log = AuditLog(folder)
    for _ in range(5):
        deny(log, "x")
    if end == "exit":
        _audit._flush_all()
    else:
        getattr(log, end)()
    with AuditLog(folder) as other:
        assert [event.count for event in other.events()] == [1, 4]
    log.close()


def test_every_thousandth_of_a_flood_is_written(folder, monkeypatch):
    monkeypatch.setattr(_audit, "_FLOOD_SECONDS", 1000)
    with AuditLog(folder) as log:
        events = [deny(log, "x") for _ in range(2501)]
        assert [event.count for event in events if event] == [1, 1000, 1000]
        assert [event.count for event in log.events()] == [1, 1000, 1000, 500]


def test_a_flood_that_goes_on_is_written_again_after_a_second(folder, monkeypatch):
    with AuditLog(folder) as log:
        deny(log, "x")
        deny(log, "x")
        monkeypatch.setattr(_audit, "_FLOOD_SECONDS", 0)
        event = deny(log, "x")
        assert event is not None
        assert event.count == 2


def test_what_differs_is_no_flood(folder):
    with AuditLog(folder) as log:
        events = [
            deny(log, "x"),
            deny(log, "y"),
            deny(log, "y", layer="guard"),
            deny(log, "y", tool="grep"),
            deny(log, "y", to="z"),
            log.record("list", "y", decision="deny", why="read.deny[0]"),
            change(log, "y"),
            change(log, "y"),
        ]
        assert [event.count for event in events if event] == [1] * 8


# The folders


def test_folders_follow_xdg_and_need_not_exist(tmp_path, monkeypatch):
    if sys.platform != "linux":
        pytest.skip("XDG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", f"{tmp_path}/one:relative:{tmp_path}/two")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert _dirs.user_config() == tmp_path / "config" / "fsjail" / "fsjail.toml"
    assert _dirs.site_configs() == [tmp_path / n / "fsjail" / "fsjail.toml" for n in ("one", "two")]
    assert _dirs.state_folder("/srv/x").parent == tmp_path / "state" / "fsjail"
    assert os.listdir(tmp_path) == []


def test_a_relative_xdg_folder_is_ignored(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    monkeypatch.setenv("XDG_CONFIG_HOME", "config")
    assert _dirs.state_folder("/srv/x").is_relative_to(tmp_path)
    assert _dirs.user_config().is_relative_to(tmp_path)


def test_a_state_folder_is_readable_and_belongs_to_the_real_root(tmp_path):
    root = tmp_path / "my project (é)"
    root.mkdir()
    (tmp_path / "link").symlink_to(root)
    name = _dirs.state_folder(str(root)).name
    assert name == "my_project____-" + hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
    assert _dirs.state_folder(str(tmp_path / "link")).name == name
    assert _dirs.state_folder(os.path.relpath(root)).name == name
    assert _dirs.state_folder("/").name.startswith("root-")
    assert _dirs.state_folder("/srv/..hidden").name.startswith("hidden-")
    assert len(_dirs.state_folder("/srv/" + "n" * 200).name) == 40 + 1 + 16
    assert _dirs.state_folder(os.fsdecode(b"/srv/\xff")).name.startswith("_-")


@pytest.mark.parametrize("module", [_logfiles, _audit], ids=["files", "log"])
def test_where_there_is_no_fcntl_and_no_fork_the_import_works(monkeypatch, module):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.delattr(os, "register_at_fork")
    spec = importlib.util.spec_from_file_location("elsewhere", module.__file__)
    assert spec is not None
    assert spec.loader is not None
    elsewhere = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "elsewhere", elsewhere)
    spec.loader.exec_module(elsewhere)
    assert getattr(elsewhere, "fcntl", None) is None


def test_importing_pays_for_nothing_heavy():
    """By themselves, without what the package's other parts import."""
    heavy = {
        "base64",
        "datetime",
        "fsjail._verify",
        "hmac",
        "logging",
        "platformdirs",
        "random",
        "secrets",
        "tempfile",
    }
    code = f"""
import sys, types
package = types.ModuleType("fsjail")
package.__path__ = [{os.path.dirname(_audit.__file__)!r}]
sys.modules["fsjail"] = package
import fsjail._audit, fsjail._dirs
print({heavy!r} & set(sys.modules))
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "set()\n"


def test_the_warning_of_a_broken_log_is_given_behind_its_lock(tmp_path):
    """A handler that opens its file in a guarded thread waits for the log: it must not be held meanwhile."""
    (tmp_path / "state").write_text("no folder")
    log = AuditLog(str(tmp_path / "state"))
    free = []

    class Handler(logging.Handler):
        def emit(self, _record):
            thread = threading.Thread(target=lambda: free.append(log._lock.acquire(timeout=5)))
            thread.start()
            thread.join()

    handler = Handler()
    logging.getLogger("fsjail").addHandler(handler)
    try:
        assert log.record("write", "f", decision="allow", why="test") is None
    finally:
        logging.getLogger("fsjail").removeHandler(handler)
    assert free == [True]
