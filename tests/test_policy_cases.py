"""Every case of `data/policy.json` through a jail: what `check` answers, and what the operation does."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fsjail import AccessDenied, ConfigError, Jail, OutOfBounds, Policy, PolicyDenied, Rules
from fsjail._errors import InvalidName

if TYPE_CHECKING:
    from collections.abc import Callable

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "data" / "policy.json").read_text())
LOOKING = {"list", "glob"}


def policy_of(case: dict[str, Any]) -> Policy:
    lists = case["policy"]
    return Policy(read=Rules(**lists.get("read", {})), write=Rules(**lists.get("write", {})))


def build(root: Path, tree: dict[str, str]) -> None:
    for name, kind in tree.items():
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if kind == "d":
            os.makedirs(path, exist_ok=True)
        elif kind.startswith("-> "):
            os.symlink(kind[3:], path)
        else:
            Path(path).write_text("x\n")


def photograph(root: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for folder, folders, names in os.walk(root):
        for name in (*folders, *names):
            path = os.path.join(folder, name)
            st = os.lstat(path)
            text = os.readlink(path) if os.path.islink(path) else ""
            if os.path.isfile(path) and not text:
                text = Path(path).read_text()
            found[os.path.relpath(path, root)] = (st.st_ino, st.st_mode, text)
    return found


def expected_label(case: dict[str, Any]) -> str | None:
    label = case["expect"].get("rule")
    return "builtin" if label == "builtin.deny[0]" else label


def name_of(case: dict[str, Any]) -> str:
    return case["path"] or "."


ACTS: dict[str, Callable[[Jail, str, str | None], object]] = {
    "read": lambda jail, path, _: jail.read_bytes(path),
    "list": lambda jail, path, _: jail.listdir(path),
    "glob": lambda jail, path, _: jail.glob("**/*", path),
    "write": lambda jail, path, _: jail.write_text(path, "new", parents=True),
    "edit": lambda jail, path, _: jail.edit(path, "x", "y"),
    "mkdir": lambda jail, path, _: jail.mkdir(path),
    "delete": lambda jail, path, _: jail.delete(path),
    "copy": lambda jail, path, to: jail.copy(path, to or "", overwrite=True),
    "move": lambda jail, path, to: jail.move(path, to or "", overwrite=True),
}


@pytest.fixture(params=["openat2", "walk"])
def resolver(request, monkeypatch):
    monkeypatch.setenv("FSJAIL_RESOLVER", request.param)
    return request.param


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_policy_case(case, base, tmp_path, resolver):
    wanted = case["expect"]
    if wanted["decision"] == "config-error":
        with pytest.raises(ConfigError) as caught:
            policy_of(case)
        assert "read.deny" in str(caught.value)
        return
    root = base / "root"
    build(root, case["fs"])
    before = photograph(root)
    allowed = wanted["decision"] == "allow"
    with Jail(root, policy_of(case), state=tmp_path / "state") as jail:
        op = "list" if case["op"] == "glob" else case["op"]
        decision = jail.check(op, name_of(case), to=case.get("dest"))
        assert decision.allowed == bool(decision) == allowed, decision
        if expected_label(case) is not None:
            assert decision.why == expected_label(case), decision
        assert decision.op == op
        assert decision.path == name_of(case)
        assert photograph(root) == before, "asking changed something"

        act = ACTS[case["op"]]
        if not allowed:
            with pytest.raises((PolicyDenied, OutOfBounds, InvalidName)) as caught:
                act(jail, name_of(case), case.get("dest"))
            if isinstance(caught.value, AccessDenied):
                assert caught.value.decision is not None
                assert caught.value.decision.why == decision.why
            assert photograph(root) == before, "a refused operation changed something"
            [event] = jail.audit.events(denied=True)
            assert event.why == decision.why, "the log does not say why"
            assert (event.rule is None) == (decision.rule is None), "the log does not name the rule"
            return
        result = act(jail, name_of(case), case.get("dest"))
        if case["op"] in LOOKING:
            shown = [each if isinstance(each, str) else each.path for each in result]
            assert sorted(shown) == sorted(wanted["visible"])
            assert photograph(root) == before


def test_all_cases_are_there():
    assert len(CASES) >= 46
    assert {case["op"] for case in CASES} <= set(ACTS)
