"""The examples run as a user runs them, and the demo notices when a step fails."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SOURCE = EXAMPLES.parent / "src"


def run(script, *arguments, env=None):
    """Run an example in its own process."""
    return subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(SOURCE), **(env or {})},
    )


@pytest.fixture
def demo():
    spec = importlib.util.spec_from_file_location("fsjail_demo", EXAMPLES / "demo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_demo(tmp_path, home):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    began = time.monotonic()
    done = run("demo.py", env={"TMPDIR": str(temporary)})
    took = time.monotonic() - began
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Refused: ") >= 6
    assert "never-shown" not in done.stdout
    for command in ("fsjail inspect", "fsjail tree", "fsjail log --denied"):
        assert f"$ {command}\n" in done.stdout
    assert list(temporary.iterdir()) == [], "the demo cleans up"
    assert not any((home / "state").iterdir()), "the demo keeps its log to itself"
    print(f"demo: {took:.1f} s")
    assert took < 10


def test_demo_keep(tmp_path, home):
    done = run("demo.py", "--keep", env={"TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    kept = Path(re.search(r"^Kept: (\S+)", done.stdout, re.MULTILINE).group(1))
    assert (kept / "project" / ".fsjail" / "Trash").is_dir()
    assert any((kept / "state").rglob("*"))


def test_demo_notices_a_refusal_that_is_missing(demo, home, monkeypatch, capsys):
    # With everything open, the attempts of the agent succeed: the demo must not call that a success.
    monkeypatch.setattr(
        demo, "CONFIG", 'drop_presets = ["secrets", "vcs", "toolchain"]\n[write]\nallow = ["*"]\n'
    )
    monkeypatch.setattr(sys, "argv", ["demo.py"])
    assert demo.main() == 1
    assert "The demo failed. This did not hold: " in capsys.readouterr().err


def test_demo_notices_an_undo_that_does_nothing(demo, home, monkeypatch, capsys):
    monkeypatch.setattr(demo.Jail, "undo", lambda _jail: [])
    monkeypatch.setattr(sys, "argv", ["demo.py"])
    assert demo.main() == 1
    assert "byte for byte" in capsys.readouterr().err


def test_quickstart(home):
    done = run("quickstart.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Refused: ") == 2
    assert "denied: 2" in done.stdout
    assert "not-for-agents" not in done.stdout


def test_langchain(home):
    pytest.importorskip("langchain_core")
    done = run("langchain_tools.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Refused: ") == 2
    assert "+    return 2" in done.stdout


def test_guard(home):
    done = run("guard.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("it went through") == 7
    assert done.stdout.count(" is denied: ") == 7
    assert not any((home / "state").iterdir()), "the example keeps its log to itself"


def test_watch(tmp_path, home):
    done = run("watch.py", env={"TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "  link: create notes/harmless.md -> /etc/passwd\n" in done.stdout
    assert [path for path in tmp_path.iterdir() if path.name.startswith("fsjail-")] == [], "it cleans up"


def test_watch_notices_what_should_not_be_told(home, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("fsjail_watch_example", EXAMPLES / "watch.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    monkeypatch.setattr(example, "EXPECTED", example.EXPECTED - {("denied change", "create", ".env")})
    assert example.main() == 1
    assert "('denied change', 'create', '.env')" in capsys.readouterr().err
