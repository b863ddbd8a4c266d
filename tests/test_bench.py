"""The benchmark in a tiny form: its work is the same at every run, and it catches a wrong answer."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1]
sys.path.insert(0, str(FOLDER))

from benchmarks import answers, goals, measure, run, systems, trees  # noqa: E402
from benchmarks.hosts import Hosts  # noqa: E402
from benchmarks.place import TINY, Place  # noqa: E402
from benchmarks.works import works  # noqa: E402


def _tiny(tmp_path, *more: str) -> int:
    temp = tmp_path / "temp"
    temp.mkdir(exist_ok=True)
    return run.main(["--tiny", "--out", str(tmp_path), "--temp", str(temp), *more])


def _fingerprint(root: Path) -> str:
    digest = hashlib.sha256()
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            digest.update(os.path.relpath(os.path.join(folder, name), root).encode())
            digest.update(Path(folder, name).read_bytes())
    return digest.hexdigest()


def test_the_whole_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    before = {path: path.stat().st_mtime_ns for path in (FOLDER / "benchmarks").glob("*")}

    assert _tiny(tmp_path) == 0

    said = capsys.readouterr().out
    assert "no picture: matplotlib is not installed" in said
    assert "WRONG" not in said
    short = "{}.{}".format(*sys.version_info)
    results = json.loads((tmp_path / f"results-{short}.json").read_text())
    parts = {key.partition(".")[0] for key in (*results["cases"], *results["figures"])}
    assert parts == set(run.PARTS)
    for key, case in results["cases"].items():
        first = case["rows"][0]
        assert first["key"].startswith("fsjail"), key
        assert first["median"] > 0, key
    report = (tmp_path / "RESULTS.md").read_text()
    for part in ("### Goals", "### Reading", "### Deleting", "### Memory", "### Growth", "with matplotlib"):
        assert (part in report) == (part != "with matplotlib")
    assert str(tmp_path) not in report
    assert os.uname().nodename not in re.split(r"[^\w.-]+", report)
    assert list((tmp_path / "temp").iterdir()) == []
    after = {path: path.stat().st_mtime_ns for path in (FOLDER / "benchmarks").glob("*")}
    assert {path.name for path in after} - {"__pycache__"} == {path.name for path in before} - {"__pycache__"}
    assert all(after[path] == before[path] for path in before if path.is_file())


def test_a_run_of_one_part_keeps_the_others_and_other_versions(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert _tiny(tmp_path, "--only", "policy") == 0
    short = "{}.{}".format(*sys.version_info)
    path = tmp_path / f"results-{short}.json"
    path.rename(tmp_path / "results-3.9.json")
    assert _tiny(tmp_path, "--only", "refused") == 0
    assert _tiny(tmp_path, "--only", "read") == 0

    assert {key.partition(".")[0] for key in json.loads(path.read_text())["cases"]} == {"read", "refused"}
    report = (tmp_path / "RESULTS.md").read_text()
    assert report.index("## Python 3.9") < report.index(f"## Python {short}")


def test_the_picture(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib draws the picture; it is not installed")
    assert _tiny(tmp_path, "--only", "list") == 0
    text = (tmp_path / "results.svg").read_text()
    assert "<svg" in text
    assert str(tmp_path) not in text


def test_trees_are_the_same_at_every_run_and_hold_what_is_said(tmp_path):
    one = trees.make_tree(str(tmp_path / "one"), 400)
    two = trees.make_tree(str(tmp_path / "two"), 400)
    assert (one.files, one.hits) == (two.files, two.hits)
    assert _fingerprint(tmp_path / "one") == _fingerprint(tmp_path / "two")
    assert len(set(one.files)) == 400
    assert any(map(trees.denied, one.files))

    for key, (needle, literal) in trees.NEEDLES.items():
        wanted = re.compile(re.escape(needle) if literal else needle)
        found = {
            (name, number)
            for name in one.files
            for number, line in enumerate(Path(one.root, name).read_text().splitlines(), 1)
            if wanted.search(line)
        }
        assert found == one.hits[key]
        assert bool(found) == (key != "nothing")


def test_the_rules_of_the_trees_are_those_of_git(tmp_path):
    """What the bench believes to be denied is what the policy denies, for any number of rules."""
    tree = trees.make_tree(str(tmp_path / "tree"), 600, empty=True)
    for number in (10, 50, 300):
        judge = systems.policy(trees.patterns(number)).judge
        for name in tree.files:
            assert judge("read", name, False).allowed is not trees.denied(name), (number, name)


def test_a_wrong_answer_is_caught():
    right = {("a.py", 1), ("b.py", 2), ("c.secret", 3)}
    shown = [("/r/a.py", 1), ("/r/b.py", 2)]
    leak = [*shown, ("/r/c.secret", 3)]
    assert answers.compare("grep", shown, "/r", right, ruled=True) == ""
    assert answers.compare("grep", leak, "/r", right, ruled=False) == "shows 1 denied too"
    assert answers.compare("grep", shown[:1], "/r", right, ruled=True) == "not complete: 1 of 2"
    for wrong in (
        [*shown, ("/r/x.py", 1)],
        [("/r/a.py", 1), ("/r/b.py", 3)],
        [("/r/a.py", 1), ("/x/b.py", 2)],
    ):
        with pytest.raises(answers.Mismatch):
            answers.compare("grep", wrong, "/r", right, ruled=False)


@pytest.mark.parametrize("fault", ["leak", "lack"])
def test_a_wrong_answer_of_fsjail_fails_the_run(tmp_path, monkeypatch, capsys, fault):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    real = systems.Fsjail.glob

    def glob(self, pattern):
        found = real(self, pattern)
        return [*found, "private_/x.py"] if fault == "leak" else found[1:]

    monkeypatch.setattr(systems.Fsjail, "glob", glob)
    assert _tiny(tmp_path, "--only", "glob") == 1
    assert "WRONG ANSWER  fsjail: glob" in capsys.readouterr().out


def test_every_system_in_a_table_exists(tmp_path):
    place = Place(str(tmp_path), TINY)
    with Hosts(systems.Setup(str(tmp_path), (), {})) as hosts:
        for work in works(place):
            assert work.systems[0].startswith("fsjail")
            assert not set(work.systems) - set(run.KINDS), work.key
            seat = hosts.seat(work.systems[0], work.place())
            assert work.op.removeprefix(systems.FIRST) in seat.ops


def test_rounds_are_interleaved_and_the_ratio_is_theirs():
    order = []

    def way(key: str, *seconds: float) -> measure.Way:
        times = iter(seconds)

        def one(_: int) -> float:
            order.append(key)
            return next(times)

        return measure.Way(key, key, one)

    # The first value of each looks how long a run takes. A slow moment hits both in one round.
    case = measure.Case("x", "x", [way("a", 1, 1, 9, 1), way("b", 1, 2, 18, 2)], once=True)
    first, second = measure.measure(case, measure.Effort(100, 3))
    assert order == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert (first.median, second.median, second.ratio) == (1, 2, 2)


@pytest.mark.parametrize(("most", "code"), [(1e9, 0), (1e-9, 1)])
def test_the_quick_look_fails_when_a_goal_is_missed(tmp_path, monkeypatch, capsys, most, code):
    wanted = (
        goals.Goal("read", "read.1k", "bare", most),
        goals.Goal("a time", "refused.outside", "clock", 1e9, "µs"),
        goals.Goal("memory", "memory.read.fsjail", "", 1e9, "MiB"),
    )
    monkeypatch.setattr(goals, "GOALS", wanted)
    assert _tiny(tmp_path, "--quick") == code
    said = capsys.readouterr().out
    assert ("MISSED" in said) == bool(code)
    assert f"{code} of 3 goals missed" in said


def test_a_goal_out_of_reach_is_missed_aloud_and_its_known_figure_guarded(tmp_path, monkeypatch, capsys):
    for known, code in ((1e9, 0), (1e-9, 1)):
        goal = goals.Goal("read", "read.1k", "bare", 1e-9, known=known, why="the reason")
        monkeypatch.setattr(goals, "GOALS", (goal,))
        assert _tiny(tmp_path, "--quick") == code
        said = capsys.readouterr().out
        assert "MISSED (the reason)" in said
        assert f"{code} of 1 goals missed" in said


def test_a_system_that_is_not_installed_is_a_row_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "programs", dict)
    assert _tiny(tmp_path, "--only", "grep") == 0
    assert (
        "| rg -j1, the same rules | - | - | - | - | ripgrep is not installed |"
        in (tmp_path / "RESULTS.md").read_text()
    )
