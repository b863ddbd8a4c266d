"""Programs that are a limit for searches: they judge by the same rules, and open paths by name."""

from __future__ import annotations

import os
import subprocess
from typing import Any, ClassVar

from benchmarks.systems import Missing, Setup, System
from fsjail._presets import PRESETS


class Ripgrep(System):
    """ripgrep in one thread with the same rules, the presets' too; it opens paths by name."""

    title = "rg -j1, the same rules"
    group = "tool"
    ruled = True
    threads: ClassVar[tuple[str, ...]] = ("-j1",)

    def open(self) -> None:
        if "rg" not in self.setup.programs:
            raise Missing("ripgrep is not installed")
        rules = ignore_file(self.setup)
        options = ["--no-config", "--no-ignore", "--ignore-file", rules, "--hidden", *self.threads]
        self.command = [self.setup.programs["rg"], *options]

    def glob(self, pattern: str) -> Any:
        return _lines([*self.command, "--files", "-g", pattern, self.root])

    def grep(self, needle: str, literal: bool) -> Any:
        options = ["--no-heading", "--with-filename", "-n", *(["-F"] if literal else [])]
        return _lines([*self.command, *options, "-e", needle, self.root])

    def walk(self) -> int:
        return len(_lines([*self.command, "--files", self.root]))


class RipgrepThreads(Ripgrep):
    """ripgrep as it comes, on all cores."""

    title = "rg, all cores"
    threads = ()


class GitList(System):
    """``git ls-files`` over files that git does not know, with the same rules."""

    title = "git ls-files --others, the same rules"
    group = "tool"
    ruled = True

    def open(self) -> None:
        git = self.setup.programs.get("git")
        if git is None:
            raise Missing("git is not installed")
        store = self.setup.folder("git")
        environ = {"PATH": os.environ.get("PATH", ""), "HOME": self.setup.base, "GIT_CONFIG_NOSYSTEM": "1"}
        self.environ = {**environ, "GIT_DIR": f"{store}/git", "GIT_WORK_TREE": self.root}
        subprocess.run([git, "init", "-q"], check=True, env=self.environ, stdout=subprocess.DEVNULL)
        self.command = [git, "ls-files", "-z", "--others", "--exclude-from", ignore_file(self.setup)]

    def _list(self, *more: str) -> list[str]:
        done = subprocess.run(
            [*self.command, *more], check=True, env=self.environ, cwd=self.root, stdout=subprocess.PIPE
        )
        return done.stdout.decode().split("\0")[:-1]

    def glob(self, pattern: str) -> Any:
        return self._list("--", f":(glob){pattern}")

    def walk(self) -> int:
        return len(self._list())


def ignore_file(setup: Setup) -> str:
    """The rules and the preset against reading secrets as a file for other programs."""
    path = f"{setup.base}/ignore-{os.getpid()}"
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join([*PRESETS["secrets"].patterns, *setup.rules, ".fsjail"]) + "\n")
    return path


def _lines(command: list[str]) -> list[str]:
    done = subprocess.run(command, check=False, capture_output=True)
    if done.returncode not in {0, 1}:
        raise RuntimeError(done.stderr.decode("utf-8", "replace")[:200])
    return done.stdout.decode().splitlines()
