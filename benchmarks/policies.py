"""What a decision costs: names that were judged before, new names, and making the policy."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

from benchmarks import trees
from benchmarks.answers import Mismatch
from benchmarks.measure import Case, Way, timed
from benchmarks.systems import policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.place import Scale

DENIED = ("a/b/private_x/y.py", "a/one.secret", "a/.env")


def cases(scale: Scale, base: str, git: str | None, wanted: Callable[[str], bool]) -> Iterator[Case]:
    """For each number of rules: a known name, a new name in a known directory, new directories, making it."""
    if not wanted("policy"):
        return
    names = trees.names_to_judge(scale.names)
    for number in scale.patterns:
        rules = trees.patterns(number)
        _verify(rules, names)
        yield Case(
            f"policy.known.{number}",
            f"decide on a name judged before, {number:,} rules",
            [_known(rules, names), _checked(rules, names), _pathspec(rules, names)],
            items=len(names),
        )
        yield Case(
            f"policy.new.{number}",
            f"decide on a new name in a directory judged before, {number:,} rules",
            [_new(rules, names, warm=True), _pathspec(rules, names), _git(rules, names, base, git)],
            items=len(names),
        )
        yield Case(
            f"policy.cold.{number}",
            f"decide on new names in new directories, {number:,} rules",
            [_new(rules, names, warm=False), _pathspec(rules, names)],
            items=len(names),
        )
        yield Case(
            f"policy.make.{number}",
            f"make a policy of {number:,} rules, per rule",
            [
                Way(
                    "fsjail",
                    "fsjail.Policy, with presets",
                    timed(lambda rules=rules: policy(rules)),
                    group="ours",
                ),
                _spec(rules),
            ],
            items=number,
        )


def _verify(rules: list[str], names: list[str]) -> None:
    ours = policy(rules)
    wrong = [name for name in names if not ours.judge("read", name, False).allowed]
    wrong += [name for name in DENIED if ours.judge("read", name, False).allowed]
    if wrong:
        raise Mismatch(f"the policy of {len(rules)} rules judges {wrong[:3]} wrongly")


def _known(rules: list[str], names: list[str]) -> Way:
    judge = policy(rules).judge

    def all_of_them() -> None:
        for name in names:
            judge("read", name, False)

    all_of_them()
    return Way("fsjail", "fsjail, as a jail asks", timed(all_of_them), group="ours")


def _checked(rules: list[str], names: list[str]) -> Way:
    check = policy(rules).check

    def all_of_them() -> None:
        for name in names:
            check("read", name, is_dir=False)

    return Way(
        "fsjail-check", "fsjail.Policy.check, a Decision with its rule", timed(all_of_them), group="ours"
    )


def _new(rules: list[str], names: list[str], *, warm: bool) -> Way:
    folders = {name.rpartition("/")[0] for name in names}

    def run(number: int) -> float:
        total = 0.0
        for _ in range(number):
            judge = policy(rules).judge
            if warm:
                for folder in folders:
                    judge("read", f"{folder}/first", False)
            begin = time.perf_counter()
            for name in names:
                judge("read", name, False)
            total += time.perf_counter() - begin
        return total

    return Way("fsjail", "fsjail, as a jail asks", run, group="ours")


def _pathspec(rules: list[str], names: list[str]) -> Way:
    import pathspec  # noqa: PLC0415 - only here

    match = pathspec.GitIgnoreSpec.from_lines(rules).match_file

    def all_of_them() -> None:
        for name in names:
            match(name)

    return Way(
        "pathspec",
        "pathspec.GitIgnoreSpec",
        timed(all_of_them),
        f"{_backend()}; remembers nothing; no presets",
    )


def _backend() -> str:
    """What pathspec matches with: RE2 where it is installed, as it is with fsjail."""
    import pathspec  # noqa: PLC0415 - only here

    kind = type(pathspec.GitIgnoreSpec.from_lines(["*.x"])._backend).__module__  # noqa: SLF001 - for a note
    return f"backend {kind.split('.')[-2]}"


def _spec(rules: list[str]) -> Way:
    import pathspec  # noqa: PLC0415 - only here

    return Way("pathspec", "pathspec.GitIgnoreSpec", timed(lambda: pathspec.GitIgnoreSpec.from_lines(rules)))


def _git(rules: list[str], names: list[str], base: str, git: str | None) -> Way:
    title = "git check-ignore --no-index (a process for all names)"
    if git is None:
        return Way("git", title, None, "git is not installed", "tool")
    root = f"{base}/ignore{len(rules)}"
    environ = {"HOME": base, "PATH": "", "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run([git, "init", "-q", root], check=True, env=environ, stdout=subprocess.DEVNULL)
    with open(f"{root}/.gitignore", "w", encoding="utf-8") as file:
        file.write("\n".join(rules) + "\n")
    asked = "\0".join(names).encode()

    def all_of_them() -> None:
        command = [git, "check-ignore", "--no-index", "-z", "--stdin"]
        done = subprocess.run(
            command, check=False, input=asked, cwd=root, env=environ, stdout=subprocess.PIPE
        )
        if done.stdout:
            raise Mismatch(f"git ignores {done.stdout[:80]!r}")

    return Way("git", title, timed(all_of_them), group="tool")
