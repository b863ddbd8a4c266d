"""What README.md shows is run: Python, configuration and commands."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fsjail import Jail
from fsjail.tools import file_tools

FOLDER = Path(__file__).parent.parent
README = (FOLDER / "README.md").read_text(encoding="utf-8")


def blocks(language):
    """Give each fenced block of a language with the line it begins on."""
    pattern = rf"^```{language}\n(.*?)^```$"
    return [
        (README.count("\n", 0, found.start()) + 2, found.group(1))
        for found in re.finditer(pattern, README, re.MULTILINE | re.DOTALL)
    ]


def run_python():
    """Run all Python blocks in order, as one program, in the present folder."""
    names = {"__name__": "readme"}
    for line, code in blocks("python"):
        # The line numbers of a traceback are then those of README.md.
        compiled = compile("\n" * (line - 1) + code, "README.md", "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compiled, names)
        promised = [text for _, text in re.findall(r"^( *print\(.*\))  # (.*)$", code, re.MULTILINE)]
        got = printed.getvalue().splitlines()
        assert [text for text in got if text in promised] == promised, (line, got)
    return names


def test_python_blocks(tmp_path, home, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_python()
    assert (tmp_path / "project" / "src" / "app.py").read_text() == "answer = 41\n"


@pytest.mark.parametrize(("line", "config"), blocks("toml"))
def test_toml_blocks(tmp_path, home, line, config):
    (tmp_path / "fsjail.toml").write_text(config)
    with Jail.load(tmp_path) as jail:
        assert jail.check("read", "src/a.py")
        assert not jail.check("read", "private/key.txt")
        assert jail.check("write", "docs/a.md")
        assert not jail.check("write", "docs/a.lock")


def console():
    """Give the commands of the console blocks: line, words, expected output lines, exit code."""
    found = []
    for begin, text in blocks("console"):
        for number, line in enumerate(text.splitlines(), begin):
            if line.startswith("$ "):
                found.append([number, shlex.split(line[2:]), []])
            else:
                found[-1][2].append(line)
    commands = []
    for number, words, output in found:
        if words == ["echo", "$?"]:
            commands[-1][3] = int(output[0])
        else:
            commands.append([number, words, output, 0])
    return commands


def test_console_blocks(tmp_path, home, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_python()
    commands = console()
    assert commands
    for number, words, output, code in commands:
        if words[0] == "cd":
            monkeypatch.chdir(words[1])
            continue
        assert words[0] == "fsjail", number
        done = subprocess.run(
            [sys.executable, "-m", "fsjail.cli", *words[1:]],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "COLUMNS": "200"},
        )
        assert done.returncode == code, (number, words, done.stdout, done.stderr)
        for text in output:
            assert text == "..." or text in done.stdout.splitlines(), (number, text, done.stdout)


def test_quick_start_has_two_commands():
    start = README.index("## Quick start")
    section = README[start : README.index("\n## ", start + 1)]
    assert re.findall(r"^(make .*?)(?: +#.*)?$", section, re.MULTILINE) == ["make demo", "make test"]
    makefile = (FOLDER / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^demo:", makefile, re.MULTILINE)
    assert re.search(r"^test:", makefile, re.MULTILINE)


def test_links_lead_to_files():
    text = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert "CHANGELOG.md" in targets
    for target in targets:
        assert (FOLDER / target).exists(), target


def test_every_tool_is_named(tmp_path, home):
    with Jail(tmp_path) as jail:
        for tool in file_tools(jail):
            assert f"`{tool.__name__}`" in README


def test_only_short_characters():
    assert not [char for char in README if ord(char) >= 0x2600], "no emoji"
