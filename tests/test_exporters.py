"""Exporters: logging, OpenTelemetry into a collector on loopback, OCSF, and how they are wired."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import gzip
import http.server
import io
import json
import logging
import logging.handlers
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

import fsjail
from fsjail import ConfigError, Event, Jail
from fsjail._audit import AuditLog
from fsjail.exporters import LoggingExporter, OTelExporter, named, ocsf_event
from fsjail.exporters._words import microseconds, plain, sentence

EVIL = "a\nERROR root: forged\x1b]0;owned\x07\u202e\udcff"


@pytest.fixture(autouse=True)
def _no_collector_of_the_user(monkeypatch):
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_BLRP_SCHEDULE_DELAY", "50")


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "state" / "log")


def deny(log: AuditLog, path: str, **more) -> Event | None:
    return log.record("read", path, decision="deny", why="read.deny[0]", errno=errno.EACCES, **more)


@dataclasses.dataclass(frozen=True)
class Rule:
    pattern: str = "*.env"
    source: str = "fsjail.toml"
    line: int | None = 3


def made(**fields: Any) -> Event:
    """An event that was written to a log and read back."""
    event = Event(
        1,
        7,
        "2025-03-01T12:00:00.123456Z",
        "run1",
        "jail",
        "read",
        "src/.env",
        None,
        "src/.env",
        "deny",
        "read.deny[0]",
        {"pattern": "*.env", "source": "fsjail.toml", "line": 3},
        errno.EACCES,
        {
            "name": "agent-7",
            "tool": "read_file",
            "call_id": "c-1",
            "pid": 42,
            "exe": "/usr/bin/python3",
            "argv": ["x y", "--z"],
        },
        None,
        1,
        None,
        "0" * 64,
        "1" * 64,
    )
    return dataclasses.replace(event, **fields)


# What they say alike


@pytest.mark.parametrize(
    ("text", "valid"),
    [("x", "x"), ("é", "é"), ("a\udcff", "a\\xff"), ("\ud800", "?"), ("caf\udcc3\udca9", "café")],
)
def test_text_becomes_valid(text, valid):
    assert plain(text) == valid
    plain(text).encode()


def test_a_sentence_is_one_safe_line():
    text = sentence(made(path=EVIL, to=EVIL, why=f"read.deny[0] on {EVIL}", op=EVIL, decision="x\n", count=3))
    assert text.isprintable()
    assert "3 times" in text
    assert sentence(made()) == "denied: read 'src/.env' (read.deny[0]), by 'agent-7'"


@pytest.mark.parametrize("moment", ["never", "2025-03-01T12:00:00", ""])
def test_a_forged_time_is_no_time(moment):
    assert microseconds(made(time=moment)) is None
    assert ocsf_event(made(time=moment))["time"] == 0
    with contextlib.closing(OTelExporter(exporter=InMemoryLogRecordExporter())) as exporter:
        exporter(made(time=moment))


# logging


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def logger():
    found = logging.getLogger("test.fsjail.audit")
    found.propagate = False
    found.setLevel(logging.INFO)
    yield found
    for handler in list(found.handlers):
        found.removeHandler(handler)
        handler.close()


def test_every_event_becomes_a_log_record(folder, logger):
    kept = Kept()
    logger.addHandler(kept)
    with AuditLog(folder, actor="agent-7") as log:
        exporter = LoggingExporter(logger)
        log.subscribe(exporter, closing=exporter.close)
        events = [
            deny(log, ".env", rule=Rule(), tool="read_file", call_id="c"),
            log.record("write", "x", decision="allow", why="write.allow[0]", trash_id="t"),
            log.record("list", "y", decision="error", why="x"),
        ]
    assert [record.levelno for record in kept.records] == [logging.WARNING, logging.INFO, logging.ERROR]
    for record, event in zip(kept.records, events, strict=True):
        assert event is not None
        assert record.name == "test.fsjail.audit"
        assert record.getMessage() == sentence(event)
        assert {f"fsjail_{key}": value for key, value in dataclasses.asdict(event).items()}.items() <= vars(
            record
        ).items()
        assert abs(record.created - datetime.fromisoformat(event.time).timestamp()) < 1e-5


def test_levels_and_the_loggers_own_level_count(logger):
    kept = Kept()
    logger.addHandler(kept)
    logger.setLevel(logging.WARNING)
    exporter = LoggingExporter(logger.name, levels={"deny": logging.CRITICAL})
    exporter(made(decision="allow"))
    exporter(made())
    exporter(made(decision="odd"))
    assert [record.levelno for record in kept.records] == [logging.CRITICAL, logging.ERROR]


def test_the_name_is_fsjail_audit(caplog):
    with caplog.at_level(logging.INFO, "fsjail.audit"):
        LoggingExporter()(made())
    assert [record.name for record in caplog.records] == ["fsjail.audit"]


def test_a_made_up_name_forges_no_line(tmp_path, logger):
    plainly = logging.FileHandler(tmp_path / "plain.log", encoding="utf-8")
    logger.addHandler(plainly)
    logger.warning("denied: %s", EVIL.replace("\udcff", ""))
    assert len((tmp_path / "plain.log").read_text().splitlines()) == 2  # the attack works
    logger.removeHandler(plainly)
    plainly.close()
    handler = logging.FileHandler(tmp_path / "x.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    LoggingExporter(logger)(made(path=EVIL, why=EVIL))
    (line,) = (tmp_path / "x.log").read_text(encoding="utf-8").splitlines()
    assert line.isprintable()
    assert ",123 WARNING denied: read" in line


def test_a_json_formatter_gets_the_fields(logger):
    class Json(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return json.dumps(
                {key: value for key, value in vars(record).items() if key.startswith("fsjail_")},
                ensure_ascii=False,
            )

    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # strict: what is no Unicode fails
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Json())
    logger.addHandler(handler)
    LoggingExporter(logger)(made(path="caf\udcff", extra={"names": ["\udcff"]}))
    stream.seek(0)
    found = json.loads(stream.read())
    assert found["fsjail_path"] == "caf\\xff"
    assert found["fsjail_extra"] == {"names": ["\\xff"]}
    assert found["fsjail_actor"]["tool"] == "read_file"


def test_syslog_takes_it(logger):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(20)
        handler = logging.handlers.SysLogHandler(receiver.getsockname())
        logger.addHandler(handler)
        LoggingExporter(logger)(made(path=EVIL))
        packet = receiver.recv(65536)
    assert packet.startswith(b"<12>denied: read ")  # user, warning
    assert b"\n" not in packet


# OpenTelemetry, in memory


def sent(*events: Event, **options: Any) -> list[Any]:
    memory = InMemoryLogRecordExporter()
    exporter = OTelExporter(exporter=memory, **options)
    for event in events:
        exporter(event)
    exporter.close()
    assert (exporter.sent, exporter.failed) == (len(events), 0)
    return list(memory.get_finished_logs())


def test_an_event_becomes_a_log_record_of_opentelemetry():
    (found,) = sent(made(), root="/srv/project")
    record = found.log_record
    assert record.event_name == "fsjail.audit"
    assert record.body == sentence(made())
    assert (record.severity_number.value, record.severity_text) == (13, "WARN")
    assert record.timestamp == 1740830400123456000
    assert dict(record.attributes) == {
        "log.record.uid": "run1-7",
        "file.path": "src/.env",
        "process.pid": 42,
        "process.executable.path": "/usr/bin/python3",
        "process.command_args": ("x y", "--z"),
        "gen_ai.agent.name": "agent-7",
        "gen_ai.tool.name": "read_file",
        "gen_ai.tool.call.id": "c-1",
        "error.type": "EACCES",
        "security_rule.name": "*.env",
        "security_rule.ruleset.name": "fsjail.toml",
        "fsjail.rule.line": 3,
        "fsjail.root": "/srv/project",
        "fsjail.v": 1,
        "fsjail.seq": 7,
        "fsjail.run": "run1",
        "fsjail.layer": "jail",
        "fsjail.op": "read",
        "fsjail.resolved": "src/.env",
        "fsjail.decision": "deny",
        "fsjail.why": "read.deny[0]",
        "fsjail.count": 1,
        "fsjail.hash": "1" * 64,
    }
    assert found.instrumentation_scope.name == "fsjail"
    assert found.instrumentation_scope.version == fsjail.__version__


def test_names_are_those_of_the_semantic_conventions():
    from opentelemetry.semconv._incubating.attributes import (
        file_attributes,
        gen_ai_attributes,
        log_attributes,
        process_attributes,
        security_rule_attributes,
    )
    from opentelemetry.semconv.attributes import error_attributes

    known = {
        value
        for module in (
            file_attributes,
            gen_ai_attributes,
            log_attributes,
            process_attributes,
            security_rule_attributes,
            error_attributes,
        )
        for name, value in vars(module).items()
        if name.isupper()
    }
    (found,) = sent(made(extra={"x": 1}, to="y", trash_id="t"), root="/x")
    assert {key for key in found.log_record.attributes if not key.startswith("fsjail.")} <= known


@pytest.mark.parametrize(
    ("decision", "number", "error"),
    [("allow", 9, None), ("deny", 13, "EACCES"), ("error", 17, "EACCES"), ("odd", 17, "EACCES")],
)
def test_severity_follows_the_decision(decision, number, error):
    (found,) = sent(made(decision=decision))
    assert found.log_record.severity_number.value == number
    assert found.log_record.attributes.get("error.type") == error


def test_an_unknown_error_has_a_type_too():
    (found,) = sent(made(errno=None))
    assert found.log_record.attributes["error.type"] == "_OTHER"


def test_the_active_trace_is_told():
    context = SpanContext(0x1234, 0x56, is_remote=False, trace_flags=TraceFlags(1))
    with trace.use_span(NonRecordingSpan(context)):
        (found,) = sent(made())
    assert (found.log_record.trace_id, found.log_record.span_id) == (0x1234, 0x56)


def test_service_and_host_are_named_unless_the_environment_does(monkeypatch):
    (found,) = sent(made())
    assert found.resource.attributes["service.name"] == "fsjail"
    assert found.resource.attributes["host.name"] == os.uname().nodename
    monkeypatch.setenv("OTEL_SERVICE_NAME", "fleet")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "host.name=h1,deployment.environment.name=prod")
    (found,) = sent(made())
    assert found.resource.attributes["service.name"] == "fleet"
    assert found.resource.attributes["host.name"] == "h1"
    assert found.resource.attributes["deployment.environment.name"] == "prod"


def test_a_provider_of_the_program_is_used_and_left_open():
    memory = InMemoryLogRecordExporter()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(memory))
    exporter = OTelExporter(provider=provider)
    exporter(made())
    exporter.close()
    exporter(made())  # closed: says nothing more
    assert len(memory.get_finished_logs()) == 1
    provider.get_logger("x").emit(body="still open")
    assert len(memory.get_finished_logs()) == 2
    provider.shutdown()


def test_it_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    memory = InMemoryLogRecordExporter()
    with contextlib.closing(OTelExporter(exporter=memory)) as exporter:
        exporter(made())
    assert memory.get_finished_logs() == ()


def test_another_protocol_is_refused_in_clear_words(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(ValueError, match="not by 'grpc'"):
        OTelExporter()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "http/protobuf")
    OTelExporter().close()


# OpenTelemetry, into a collector


class Collector:
    """A collector for OTLP over HTTP on loopback: decodes what it gets; can be told to refuse or to hang."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.records: list[Any] = []
        self.resources: list[dict[str, Any]] = []
        self.status = 200
        self.hold = threading.Event()
        self.hold.set()
        ours = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                ours.hold.wait(30)
                if ours.status == 200:
                    ours.take(self.path, {key.lower(): value for key, value in self.headers.items()}, body)
                with contextlib.suppress(OSError):  # the sender went away
                    self.send_response(ours.status)
                    self.send_header("Content-Type", "application/x-protobuf")
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        request = ExportLogsServiceRequest()
        request.ParseFromString(body)
        self.requests.append((path, headers))
        for group in request.resource_logs:
            self.resources.append({one.key: one.value.string_value for one in group.resource.attributes})
            for scope in group.scope_logs:
                assert scope.scope.name == "fsjail"
                self.records.extend(scope.log_records)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hold.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def paths(self) -> list[str]:
        return [attribute(record, "file.path") for record in self.records]

    def until(self, count: int) -> list[str]:
        for _ in range(1000):
            if len(self.records) >= count:
                break
            time.sleep(0.02)
        return self.paths()


def attribute(record: Any, key: str) -> Any:
    for one in record.attributes:
        if one.key == key:
            return getattr(one.value, one.value.WhichOneof("value"))
    return None


@pytest.fixture
def collector(monkeypatch):
    with Collector() as found:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.url)
        yield found


def test_a_collector_gets_what_a_log_records(folder, collector, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=fleet7")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    exporter = OTelExporter(root="/srv/x")
    with AuditLog(folder, actor="agent-7") as log:
        log.subscribe(exporter, closing=exporter.close)
        for number in range(5):
            deny(log, f"{number}/caf\udcff\n", rule=Rule(), extra={"kind": "\udcff"})
        for _ in range(4):
            deny(log, "flood")
    assert collector.paths() == [*(f"{number}/caf\\xff\n" for number in range(5)), "flood", "flood"]
    assert [attribute(record, "fsjail.count") for record in collector.records] == [1] * 6 + [3]
    path, headers = collector.requests[0]
    assert (path, headers["x-tenant"]) == ("/v1/logs", "fleet7")
    assert collector.resources[0]["service.name"] == "fsjail"
    record = collector.records[0]
    assert (record.severity_number, record.severity_text) == (13, "WARN")
    assert record.event_name == "fsjail.audit"
    assert (
        record.body.string_value.startswith("denied: read '0/caf\\xff\\n'")
        or "\n" not in record.body.string_value
    )
    with AuditLog(folder) as log:
        first = next(log.events())
    assert record.time_unix_nano == (microseconds(first) or 0) * 1000
    assert attribute(record, "fsjail.hash") == first.hash
    assert (exporter.sent, exporter.failed) == (7, 0)


def test_a_configured_jail_reports_by_itself(home, tmp_path, collector):
    """In a process of its own, which neither closes the jail nor waits."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "fsjail.toml").write_text('audit.export = ["otel", "logging"]\n')
    code = """
import sys
from fsjail import Jail
jail = Jail.load(sys.argv[1], actor="agent-7")
assert not [name for name in sys.modules if name.startswith("opentelemetry.sdk")]
for _ in range(3):
    try:
        jail.read_text(".env")
    except PermissionError:
        pass
"""
    found = subprocess.run(
        [sys.executable, "-c", code, str(root)], capture_output=True, text=True, timeout=60, check=True
    )
    assert set(collector.paths()) == {".env"}
    counts = [attribute(record, "fsjail.count") for record in collector.records]
    assert counts in ([1, 2], [1, 1, 1])  # the import before the second may take a second
    assert attribute(collector.records[0], "fsjail.root") == str(root)
    assert found.stderr.count("denied: read '.env'") == len(counts)  # logging's last resort


def test_a_collector_that_is_absent_costs_no_operation(folder, monkeypatch, caplog):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, but nobody listens: refused
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        exporter = OTelExporter()
        with AuditLog(folder) as log, caplog.at_level(logging.CRITICAL):
            log.subscribe(exporter, closing=exporter.close)
            for number in range(50):
                assert deny(log, str(number)) is not None
        assert exporter.failed > 0
    with AuditLog(folder) as log:
        assert log.tail(0)[1] == 50


def test_a_collector_that_hangs_blocks_nothing_and_bounds_the_queue(folder, monkeypatch, caplog):
    monkeypatch.setenv("OTEL_BLRP_MAX_QUEUE_SIZE", "20")
    monkeypatch.setenv("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "10")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "20")
    with Collector() as collector, caplog.at_level(logging.CRITICAL):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        collector.hold.clear()
        exporter = OTelExporter()
        with AuditLog(folder) as log:
            log.subscribe(exporter)
            started = time.monotonic()
            for number in range(300):
                assert deny(log, str(number)) is not None
            assert time.monotonic() - started < 10  # the collector holds every answer for longer
            started = time.monotonic()
            exporter.close(0.3)
            assert time.monotonic() - started < 5
        collector.hold.set()
        time.sleep(0.2)
        assert len(collector.until(1)) <= 50


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_sends_its_own_events_only(folder, collector):
    exporter = OTelExporter()
    with AuditLog(folder) as log:
        log.subscribe(exporter, closing=exporter.close)
        deny(log, "parent 1")
        child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                deny(log, "child")
                log.close()
                status = 0
            os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        deny(log, "parent 2")
    assert sorted(collector.paths()) == ["child", "parent 1", "parent 2"]


# Without the extra


HIDDEN = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hide())
"""


def hidden(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HIDDEN + code, *args], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    "code",
    ["import fsjail.exporters.otel", "from fsjail.exporters import OTelExporter"],
    ids=["module", "name"],
)
def test_without_the_extra_the_error_names_it(code):
    found = hidden(code)
    assert "ImportError: OpenTelemetry is not installed" in found.stderr
    assert "pip install 'fsjail[otel]'" in found.stderr


def test_without_the_extra_a_configuration_says_so_at_the_start(home, tmp_path):
    (tmp_path / "fsjail.toml").write_text('audit.export = ["otel"]\n')
    code = "from fsjail import Jail; Jail.load(sys.argv[1])"
    found = hidden(code, str(tmp_path))
    assert "ConfigError: audit.export: 'otel' needs an extra: pip install 'fsjail[otel]'" in found.stderr
    found = hidden("from fsjail.cli import main; main()", "--root", str(tmp_path), "log", "--export", "otel")
    assert found.returncode == 2
    assert found.stderr == "fsjail: audit.export: 'otel' needs an extra: pip install 'fsjail[otel]'\n"


def test_without_the_extra_the_rest_works(home, tmp_path):
    (tmp_path / "fsjail.toml").write_text('audit.export = ["logging"]\n')
    code = """
from fsjail import Jail
from fsjail.exporters import LoggingExporter, ocsf_event
jail = Jail.load(sys.argv[1])
try:
    jail.read_text(".env")
except PermissionError:
    pass
"""
    found = hidden(code, str(tmp_path))
    assert (found.returncode, found.stdout) == (0, "")
    assert found.stderr == "denied: read '.env' (preset secrets[0])\n"


def test_names_that_are_none_are_refused():
    with pytest.raises(ConfigError, match="there is no exporter 'syslog'; there are logging, otel"):
        named(["logging", "syslog"])
    with pytest.raises(AttributeError, match="no attribute 'Syslog'"):
        fsjail.exporters.Syslog  # noqa: B018 - the question itself


def test_an_exporter_that_cannot_be_made_is_told_once(folder, monkeypatch, caplog):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    (exporter,) = named(["otel", "otel"])
    with AuditLog(folder) as log, caplog.at_level(logging.WARNING, "fsjail"):
        log.subscribe(exporter, closing=exporter.close)
        for number in range(3):
            assert deny(log, str(number)) is not None
    (another,) = named(["otel"])
    with pytest.raises(ValueError, match="grpc"):
        another(made())
    another(made())  # not tried again: the import is slow
    (record,) = caplog.records
    assert "failed (told once): ValueError: OTLP goes by http/protobuf here" in record.getMessage()


def test_importing_fsjail_brings_no_exporter():
    code = """
import sys, fsjail
print([name for name in sys.modules if name.startswith(("opentelemetry", "fsjail.exporters", "logging"))])
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


# fsjail log --export otel


@pytest.fixture
def project(home, tmp_path, monkeypatch) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "fsjail.toml").write_text("")
    monkeypatch.chdir(root)
    return root


def log_of(root: Path, **options: Any) -> AuditLog:
    with Jail.load(root) as jail:
        return AuditLog(jail.audit.folder, actor="agent-7", **options)


def side_car(*args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fsjail.cli", "log", "--export", "otel", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(child: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, err = child.communicate(timeout=60)
    assert child.returncode == code, (out, err)
    return out, err


def test_the_command_sends_what_is_there(project, collector):
    with log_of(project) as log:
        for number in range(1200):
            deny(log, str(number))
        log.record("write", "x", decision="allow", why="y")
    assert ended(side_car("--denied")) == ("1,200 events sent.\n", "")
    assert collector.paths() == [str(number) for number in range(1200)]
    assert ended(side_car("-n", "2")) == ("2 events sent.\n", "")
    assert collector.paths()[1200:] == ["1199", "x"]


def test_the_command_says_when_nothing_was_taken(project, collector, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    collector.status = 400
    with log_of(project) as log:
        deny(log, "x")
    out, err = ended(side_car(), 1)
    assert (out, err) == ("", "fsjail: the collector did not take all; 0 events sent\n")


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_the_side_car_sends_what_comes(project, collector, end):
    with log_of(project, max_bytes=3000, keep=50) as log:
        deny(log, "before")
        child = side_car("--follow")
        assert child.stderr is not None
        assert "sending" in child.stderr.readline()
        time.sleep(0.3)
        for number in range(30):
            deny(log, str(number))
        assert collector.until(30) == [str(number) for number in range(30)]
        child.send_signal(end)
        out, err = ended(child)
    assert (out, err) == ("", "fsjail: 30 events sent\n")


def test_the_side_car_loses_nothing_while_the_collector_is_away(project, monkeypatch):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    with log_of(project) as log:
        deny(log, "before")
        child = side_car("--follow", "-n", "0")
        assert child.stderr is not None
        assert "sending" in child.stderr.readline()
        assert "does not answer; 1 event wait" in child.stderr.readline()
        deny(log, "meanwhile")
        with Collector(port) as collector:
            for _ in range(1000):  # one may come twice, where its answer came too late
                if set(collector.paths()) == {"before", "meanwhile"}:
                    break
                time.sleep(0.02)
            assert set(collector.paths()) == {"before", "meanwhile"}
            child.send_signal(signal.SIGINT)
            _out, err = ended(child)
    assert "answers again" in err


# OCSF

CAPTIONS = {
    "activity_id": (
        "activity_name",
        {0: "Unknown", 1: "Create", 2: "Read", 3: "Update", 4: "Delete", 5: "Rename"},
    ),
    "severity_id": ("severity", {0: "Unknown", 1: "Informational", 2: "Low", 3: "Medium", 4: "High"}),
    "status_id": ("status", {1: "Success", 2: "Failure"}),
    "action_id": ("action", {0: "Unknown", 1: "Allowed", 2: "Denied"}),
    "disposition_id": ("disposition", {0: "Unknown", 1: "Allowed", 2: "Blocked", 15: "Detected"}),
}


def check_ocsf(found: dict[str, Any]) -> None:
    """What version 1.4.0 requires of File System Activity, read off the schema by hand."""
    required = {
        "activity_id": int,
        "actor": dict,
        "category_uid": int,
        "class_uid": int,
        "device": dict,
        "file": dict,
        "metadata": dict,
        "severity_id": int,
        "time": int,
        "type_uid": int,
    }
    for key, kind in required.items():
        assert type(found[key]) is kind, key
    assert (found["category_uid"], found["class_uid"]) == (1, 1001)
    assert found["type_uid"] == 100_100 + found["activity_id"]
    assert found["activity_id"] in {*range(15), 99}
    for number, (caption, known) in CAPTIONS.items():
        if found[number] in known:
            assert found[caption] == known[found[number]]
    assert found["severity_id"] in {*range(7), 99}
    assert found["status_id"] in {0, 1, 2, 99}
    assert found["metadata"]["version"] == "1.4.0"
    assert {"name", "vendor_name", "version"} <= set(found["metadata"]["product"])
    assert found["metadata"]["profiles"] == ["security_control"]
    assert found["device"]["hostname"]
    assert found["device"]["type_id"] == 0
    for file in (found["file"], found.get("file_result", found["file"])):
        assert file["name"]
        assert file["type_id"] in {*range(8), 99}
    process = found["actor"]["process"]
    assert type(process["pid"]) is int
    assert isinstance(process.get("cmd_line", ""), str)
    assert {"name", "type_id"} <= set(process["file"])
    assert None not in found.values()
    text = json.dumps(found, ensure_ascii=False)
    text.encode()  # valid Unicode everywhere
    assert json.loads(text) == found


@pytest.mark.parametrize(
    ("fields", "activity", "status"),
    [
        ({}, 2, 2),
        ({"op": "list", "decision": "allow"}, 2, 1),
        ({"op": "stat"}, 8, 2),
        ({"op": "write", "decision": "allow", "trash_id": "t"}, 3, 1),
        ({"op": "write", "decision": "allow"}, 1, 1),
        ({"op": "write"}, 3, 2),
        ({"op": "edit"}, 3, 2),
        ({"op": "mkdir"}, 1, 2),
        ({"op": "delete"}, 4, 2),
        ({"op": "move", "to": "b"}, 5, 2),
        ({"op": "copy", "to": "b"}, 1, 2),
        ({"op": "restore"}, 1, 2),
        ({"op": "open", "layer": "guard"}, 14, 2),
        ({"op": "exec", "layer": "run", "decision": "error"}, 99, 2),
        ({"op": "attributes", "layer": "watch", "decision": "error"}, 6, 2),
        ({"op": "link", "layer": "watch"}, 1, 2),
        ({"op": "repair", "layer": "audit", "decision": "error"}, 99, 2),
        ({"path": EVIL, "why": EVIL, "extra": {"\udcff": ["\ud800"]}}, 2, 2),
        ({"path": "", "rule": None, "errno": None}, 2, 2),
        ({"path": "/", "actor": {"pid": 1, "exe": "/x", "argv": []}}, 2, 2),
    ],
)
def test_an_event_becomes_file_system_activity(fields, activity, status):
    found = ocsf_event(made(**fields))
    check_ocsf(found)
    assert (found["activity_id"], found["status_id"]) == (activity, status)


def test_ocsf_fields():
    found = ocsf_event(made(op="move", to="b/c.txt", count=9), host="h1")
    assert found["time"] == 1740830400123
    assert found["message"].startswith("denied: move")
    assert (found["status_code"], found["status_detail"], found["count"]) == ("EACCES", "read.deny[0]", 9)
    assert found["file"] == {"name": ".env", "path": "src/.env", "type_id": 0, "type": "Unknown"}
    assert found["file_result"]["path"] == "b/c.txt"
    assert found["device"]["hostname"] == "h1"
    assert found["actor"] == {
        "app_name": "agent-7",
        "process": {
            "pid": 42,
            "uid": "run1",
            "name": "python3",
            "file": {"name": "python3", "path": "/usr/bin/python3", "type_id": 1, "type": "Regular File"},
            "cmd_line": "'x y' --z",
        },
    }
    assert found["policy"] == {"uid": "read.deny[0]", "name": "fsjail.toml:3", "desc": "*.env"}
    assert found["metadata"]["uid"] == "run1-7"
    assert found["unmapped"]["tool"] == "read_file"
    assert (found["action"], found["disposition"], found["severity"]) == ("Denied", "Blocked", "Medium")
    assert ocsf_event(made(op="copy", to="b"))["file"]["path"] == "b"
    assert ocsf_event(made(layer="watch"))["disposition"] == "Detected"
    assert (
        ocsf_event(made(rule={"pattern": "x", "source": "builtin", "line": None}))["policy"]["name"]
        == "builtin"
    )


def test_ocsf_from_the_command_line(project):
    with log_of(project) as log:
        for number in range(120):
            deny(log, f"{number}\udcff", rule=Rule())
    run = [sys.executable, "-m", "fsjail.cli", "log", "--format", "ocsf"]
    found = subprocess.run(run, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in found.stdout.splitlines()]
    for line in lines:
        check_ocsf(line)
    assert [line["file"]["path"] for line in lines] == [f"{number}\\xff" for number in range(120)]
    assert re.search(r"\\ud[89a-f]", found.stdout) is None
    found = subprocess.run([*run, "-n", "3"], capture_output=True, text=True, check=True)
    assert len(found.stdout.splitlines()) == 3
