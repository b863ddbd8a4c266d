"""The policy: lists, their order, wide and narrow matching, labels, sentences."""

from __future__ import annotations

import copy
import json
import pickle
import random
import unicodedata
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from fsjail._answers import Answers
from fsjail._errors import AccessDenied, ConfigError, OutOfBounds, PolicyDenied
from fsjail._policy import OPERATIONS, Decision, Policy, Rule, Rules, Verdict
from fsjail._presets import PRESETS

CASES = json.loads((Path(__file__).parent / "data" / "policy.json").read_text("utf-8"))
# What needs the disk: links, what lies beneath, both ends of a move.
ON_DISK = {"P33", "P59", "P64", "P66", "P69"}


def policy_of(lists, **options):
    return Policy(*(Rules(**lists.get(access, {})) for access in ("read", "write")), **options)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case["id"] not in ON_DISK], ids=lambda case: case["id"]
)
def test_case(case):
    expect = case["expect"]
    if expect["decision"] == "config-error":
        with pytest.raises(ConfigError) as caught:
            policy_of(case["policy"])
        assert caught.value.file == expect["rule"]
        return
    op = "list" if case["op"] == "glob" else case["op"]
    decision = policy_of(case["policy"]).check(op, case["path"] or ".")
    assert bool(decision) is (expect["decision"] == "allow")
    if "rule" in expect:
        assert decision.why == {"builtin.deny[0]": "builtin"}.get(expect["rule"], expect["rule"])


# ── which lists are asked, in which order ──────────────────────────────────────────────────────


def test_without_lists_everything_is_readable_and_nothing_writable():
    policy = Policy()
    assert policy.check("read", "a").why == "default"
    assert policy.check("write", "a").why == "write.allow: no rule"
    assert policy == Policy.read_only()
    assert Policy.workspace().check("write", "a").why == "write.allow[0]"


def test_an_empty_allow_list_allows_nothing():
    policy = Policy(Rules(allow=[]), Rules(allow=[]))
    assert policy.check("read", "a").why == "read.allow: no rule"
    assert policy.check("write", "a").why == "write.allow: no rule"


ORDER = [
    # op, path, why, with every list in play
    ("read", "all/.fsjail", "builtin"),
    ("read", "x/fsjail.toml", "builtin"),
    ("read", "rd.pem", "read.deny[0]"),
    ("read", "x.pem", "preset secrets"),
    ("write", "rd.lock", "read.deny[0]"),
    ("write", "x.lock", "write.deny[0]"),
    ("write", ".git/config", "preset vcs[0]"),
    ("write", "x/.git/config", "preset vcs[0]"),
    ("read", ".git/config", "read.allow: no rule"),
    ("edit", "x.lock", "write.deny[0]"),
    ("edit", "w/x", "read.allow: no rule"),
    ("edit", "r/x", "write.allow: no rule"),
    ("edit", "r/w/x", "write.allow[1]"),
    ("move", "w/x", "read.allow: no rule"),
    ("copy", "w/x", "read.allow: no rule"),
    ("copy", "r/x", "read.allow[0]"),
    ("write", "w/x", "write.allow[0]"),
    ("delete", "w/x", "write.allow[0]"),
    ("mkdir", "w/x", "write.allow[0]"),
    ("write", "w/no", "write.allow[2]"),
    ("edit", "r/w/no", "write.allow[2]"),
    ("read", "r/x", "read.allow[0]"),
]


@pytest.mark.parametrize(("op", "path", "why"), ORDER)
def test_order_of_the_lists(op, path, why):
    policy = Policy(Rules(allow=["/r/"], deny=["rd*"]), Rules(allow=["/w/", "/r/w/", "!no"], deny=["*.lock"]))
    assert policy.check(op, path).why.startswith(why)


def test_an_unknown_operation_names_the_known_ones():
    with pytest.raises(ValueError, match=", ".join(OPERATIONS)):
        Policy().check("chmod", "a")


# ── names ──────────────────────────────────────────────────────────────────────────────────────

NAMES = [
    ("", "jail: invalid name"),
    ("a\0b", "jail: invalid name"),
    ("a" * 4096, "jail: invalid name"),
    ("\ud800", "jail: invalid name"),
    ("..", "jail: outside"),
    ("a/../..", "jail: outside"),
    ("/etc/passwd", "jail: outside"),
    ("/", "jail: outside"),
    ("a" * 4095, "default"),
    ("a/..", "default"),
    (".", "default"),
    ("./", "default"),
    ("x//./y/../z/", "default"),
    ("..a", "default"),
]


@pytest.mark.parametrize(("path", "why"), NAMES)
def test_names(path, why):
    assert Policy(presets=()).check("read", path).why == why


@pytest.mark.parametrize("op", ["delete", "move", "write", "edit", "mkdir"])
def test_the_root_stays(op):
    assert Policy.workspace().check(op, "a/..").why == "jail: root"


def test_a_path_object_will_do_and_bytes_will_not():
    assert Policy().check("read", PurePosixPath("a/b"))
    with pytest.raises(TypeError, match="bytes"):
        Policy().check("read", b"a")


@pytest.mark.parametrize(
    "name",
    ["", "/", "/a", "/a/b", "a//b", "a/", "a/./b", "a/../b", "..", "a/\0", "é\0", "\ud800", "\ud800/a"],
)
def test_judge_takes_canonical_names_only(name):
    policy = Policy.workspace()
    assert policy.judge("read", name, False).why == "jail: invalid name"
    assert policy.judge("write", name, True).why == "jail: invalid name"
    assert not policy.may_contain(f"{name}/x" if name != "" else "")


def test_a_trailing_slash_never_loosens():
    policy = policy_of({"read": {"deny": ["*", "!b"]}})
    assert policy.check("read", "b", is_dir=False)
    deny = policy_of({"read": {"deny": ["b/"]}})
    assert deny.check("read", "b", is_dir=False)
    assert not deny.check("read", "b/", is_dir=False)


# ── wide and narrow ────────────────────────────────────────────────────────────────────────────

SPELLINGS = [
    # rule, asked, exact
    ("secret", "SECRET", False),
    ("SECRET", "secret", False),
    ("README*", "readme.md", False),
    ("README*", "README.md", True),
    ("café", "cafe\u0301", False),
    ("cafe\u0301", "café", False),
    ("cafe\u0301", "CAFÉ", False),
    ("straße", "STRASSE", False),
    ("x/Y/z", "X/y/Z", False),
    ("[A-C]x", "bX", False),
    ("[[:upper:]]x", "bx", False),
    ("[!A]", "B", True),
    ("*.PEM", "a.pem", False),
    ("é/[X]", "É/x", False),
    ("caf\udcc3*", "café", True),
    ("[\udcc3]?", "É", True),
]


@pytest.mark.parametrize(("rule", "asked", "exact"), SPELLINGS)
def test_deny_is_wide_and_allow_is_narrow(rule, asked, exact):
    deny = policy_of({"read": {"deny": [rule]}}, presets=())
    allow = policy_of({"read": {"allow": [rule]}}, presets=())
    assert not deny.judge("read", asked, False).allowed
    assert allow.judge("read", asked, False).allowed is exact


@pytest.mark.parametrize(("rule", "asked", "exact"), SPELLINGS)
def test_an_exception_in_deny_is_narrow_and_in_allow_is_wide(rule, asked, exact):
    deny = policy_of(
        {"read": {"deny": ["**", f"!{rule}"] if "/" not in rule else [asked, f"!{rule}"]}}, presets=()
    )
    allow = policy_of({"read": {"allow": ["*", f"!{rule}"]}}, presets=())
    assert deny.judge("read", asked, False).allowed is exact
    assert not allow.judge("read", asked, False).allowed


@pytest.mark.parametrize("is_dir", [True, False, None])
def test_an_unknown_type_counts_as_both(is_dir):
    def allowed(access, name, **lists):
        return policy_of({"read": lists}, presets=()).judge(access, name, is_dir).allowed

    assert allowed("read", "x", deny=["x/"]) is (is_dir is False)
    assert allowed("read", "x", deny=["x", "!x/"]) is (is_dir is True)
    assert allowed("read", "x", allow=["x/"]) is (is_dir is True)
    assert allowed("read", "x", allow=["x", "!x/"]) is (is_dir is False)


def test_a_name_of_lone_surrogates_is_the_name_of_its_bytes():
    policy = policy_of({"read": {"deny": ["é"]}}, presets=())
    assert not policy.judge("read", "\udcc3\udca9", False).allowed
    assert not policy.judge("read", "\udcc3\udca9/x", False).allowed
    assert not policy.judge("read", "A/é/\udcff", False).allowed
    assert policy.judge("read", "\udcc3/x", False).allowed


def test_both_readings_of_stars_behind_a_literal_are_denied():
    """git before 2.52 reads ``a**/b`` as ``a``, then any directories, then ``b``."""
    deny = policy_of({"read": {"deny": ["/ab**/c", "/é**"]}}, presets=())
    for name in ("abc", "abx/c", "abx/y/c", "ABX/Y/C", "éx/y"):
        assert not deny.judge("read", name, False).allowed, name
    allow = policy_of({"read": {"allow": ["/ab**/c"]}}, presets=())
    assert [allow.judge("read", name, False).allowed for name in ("abc", "abx/c", "abx/y/c")] == [
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(("rule", "names"), [
    ("ab**\\/c", ["abx/y/c"]),
    ("ab**/**/c", ["abc", "abx/y/c"]),
    ("ab**/**", ["ab", "abx/y/c"]),
])  # fmt: skip
def test_more_older_readings(rule, names):
    policy = policy_of({"read": {"deny": [rule]}}, presets=())
    assert not any(policy.judge("read", name, False).allowed for name in names)


# ── allow lists and the way to what they allow ─────────────────────────────────────────────────

WAYS = [
    (["src/*.py"], ".", True),
    (["src/*.py"], "src", True),
    (["src/*.py"], "lib", False),
    (["*.md"], "a/b/c", True),
    (["src/", "!src/x"], "src/y", True),
    (["src/", "!src/x"], "src/x", False),
    (["src/", "!src/x", "src/x/keep"], "src/x", True),
    (["*.md", "!priv/"], "priv", False),
    (["*.md", "!priv/", "*.txt"], "priv", True),
    (["# nothing else", "a/b"], "a", True),
    ([], "a", False),
    (None, "a", True),
]


@pytest.mark.parametrize(("allow", "name", "could"), WAYS)
def test_may_contain(allow, name, could):
    assert Policy(Rules(allow=allow)).may_contain(name) is could
    if allow is not None:
        assert Policy(write=Rules(allow=allow)).may_contain(name, "write") is could


def test_nothing_below_a_denied_directory():
    policy = Policy(Rules(deny=["a"]), Rules(allow=["*"], deny=["b"]))
    assert not policy.may_contain("a")
    assert not policy.may_contain("a/x", "write")
    assert policy.may_contain("b")
    assert not policy.may_contain("b", "write")
    assert not policy.may_contain("x\0")
    assert not Policy().may_contain("a", "write")


def test_listing():
    policy = Policy(Rules(allow=["src/*.py", "!src/x/", "/docs/"], deny=["docs/private/"]))
    why = {
        path: policy.check("list", path).why for path in (".", "src", "src/x", "lib", "docs", "docs/private")
    }
    assert why == {
        ".": "filtered",
        "src": "filtered",
        "src/x": "read.allow[1]",
        "lib": "read.allow: no rule",
        "docs": "filtered",
        "docs/private": "read.deny[0]",
    }
    assert Policy(presets=()).check("list", "a").why == "default"
    assert Policy().check("list", "a").why == "filtered"
    assert Policy(Rules(allow=[]), presets=()).check("list", ".").why == "filtered"


def test_a_directory_that_is_made_is_a_directory():
    policy = Policy(write=Rules(allow=["src/"]))
    assert policy.check("mkdir", "src")
    assert not policy.check("write", "src")


# ── presets ────────────────────────────────────────────────────────────────────────────────────

HIDDEN = """
.env .env.local a/.env server.pem tls.key id_rsa id_rsa.bak id_ed25519 .ssh/config .ssh/id_rsa.pub
.aws/credentials .netrc .npmrc .pypirc x.p12 x.pfx x.jks x.keystore x.kdbx .git-credentials
.docker/config.json .kube/config .gnupg/x credentials.json service-account-prod.json .htpasswd
.pgpass .my.cnf terraform.tfstate terraform.tfstate.backup secrets.yaml secrets.yml .vault-token
.config/gcloud/x home/.config/gcloud/x home/.docker/config.json .ENV Server.PEM
"""
SHOWN = """
.env.example .env.sample .env.template .env.dist secrets.py key.py keys.py keyboard.md env.py
secret.md id_rsa.pub id_ed25519.pub credentials.py config.json docker/config.json environment .envoy
README.md package.json settings.xml pem.py password.py token.ts auth/secrets.go
tests/test_secrets.py keystore.java aws/main.tf .config/app.toml .github/workflows/ci.yml
.git/config .vscode/settings.json .gitignore monkey.key.md
"""
FROZEN = """
.git .git/config sub/.git/hooks/x .hg/hgrc .svn/x .gitmodules .envrc .vscode/tasks.json .idea/x
.claude/settings.json .mcp.json .github/workflows/ci.yml .bashrc .zshrc .profile .husky/pre-commit
.pre-commit-config.yaml .GIT/config
"""
WRITABLE = """
.gitignore .gitattributes .github/ISSUE_TEMPLATE.md src/a.py Makefile AGENTS.md CLAUDE.md setup.py
package.json git/x model.pth .editorconfig README.md profile bashrc
"""


def test_presets_hide_secrets_and_freeze_what_runs():
    policy = Policy.workspace()
    read = {name: policy.check("read", name).why for name in (HIDDEN + " " + SHOWN).split()}
    assert {name for name, why in read.items() if why == "default"} == set(SHOWN.split())
    assert {why.partition("[")[0] for name, why in read.items() if name in HIDDEN.split()} == {
        "preset secrets"
    }
    write = {name: policy.check("write", name).why for name in (FROZEN + " " + WRITABLE).split()}
    assert {name for name, why in write.items() if why == "write.allow[0]"} == set(WRITABLE.split())
    assert {why.partition("[")[0] for name, why in write.items() if name in FROZEN.split()} == {
        "preset vcs",
        "preset toolchain",
    }


def test_a_preset_says_which_rule():
    decision = Policy().check("read", ".env.local")
    number = PRESETS["secrets"].patterns.index(".env.*")
    assert decision.why == f"preset secrets[{number}]"
    assert decision.rule == Rule(".env.*", "preset secrets")
    assert str(decision.rule) == "'.env.*' of preset secrets"


def test_an_exception_of_a_preset_opens_nothing_else():
    policy = Policy(Rules(deny=[".env*"]))
    assert policy.check("read", ".env.example").why == "read.deny[0]"


def test_presets_by_name():
    assert Policy(presets=["vcs", "vcs"]).presets == ("vcs",)
    assert Policy(presets=()).check("read", ".env")
    with pytest.raises(ConfigError, match=r"'sercets'.*secrets, vcs, toolchain"):
        Policy(presets=["sercets"])
    with pytest.raises(TypeError, match="one string"):
        Policy(presets="secrets")


def test_no_preset_has_a_dead_rule_or_one_twice():
    assert Policy().warnings == ()
    for preset in PRESETS.values():
        assert len(set(preset.patterns)) == len(preset.patterns)


# ── guarded and tightened ──────────────────────────────────────────────────────────────────────


def test_guards_are_built_in():
    policy = Policy(write=Rules(allow=["*"])).guarded([("write", "/pyproject.toml"), ("read", "/state/")])
    assert policy.check("read", "pyproject.toml")
    assert policy.check("write", "pyproject.toml").why == "builtin"
    assert policy.check("write", "PYPROJECT.toml").why == "builtin"
    assert policy.check("write", "a/pyproject.toml")
    assert policy.check("read", "state/x").why == "builtin"
    assert policy.guarded([]) == policy
    with pytest.raises(ConfigError, match="builtin"):
        Policy().guarded([("read", "[")])


SITE = "/etc/xdg/fsjail/site.toml"


def test_tightened_lists_keep_to_themselves():
    mine = Policy(Rules(deny=["*.key", "!public.key"]), Rules(allow=["*"]), presets=["vcs"])
    site = Policy(Rules(deny=[Rule("!a.key", SITE, 2), Rule("*.db", SITE, 3)]),
                  Rules(deny=["x"]), presets=["secrets"])  # fmt: skip
    both = mine.tightened(site)
    assert both.presets == ("vcs", "secrets")
    assert both.check("read", "a.key").why == "read.deny[0]"
    assert both.check("write", "b.db").why == "read.deny[1]"
    assert both.check("write", "x").why == "write.deny[0]"
    assert both.check("write", "y").why == "write.allow[0]"
    assert "site.toml line 3" in str(both.check("read", "b.db"))
    assert "/etc" not in str(both.check("read", "b.db"))
    assert any("!a.key" in warning and "site.toml line 2" in warning for warning in both.warnings)


def test_tightened_allow_lists_must_both_allow():
    both = Policy(Rules(allow=["/a/", "/b/"]), presets=()).tightened(
        Policy(Rules(allow=["/b/", "/c/", "!b/x"]), presets=())
    )
    why = {path: both.check("read", path).why for path in ("a/x", "b/y", "c/x", "b/x")}
    assert why == {
        "a/x": "read.allow: no rule",
        "b/y": "read.allow[1]",
        "c/x": "read.allow: no rule",
        "b/x": "read.allow[2]",
    }
    assert both.may_contain("b")
    assert not both.may_contain("a")
    guarded = both.tightened(Policy().guarded([("read", "b/z")]))
    assert guarded.check("read", "b/z").why == "builtin"


# ── rules that cannot work, or do nothing ──────────────────────────────────────────────────────


def test_a_bad_rule_names_its_place():
    with pytest.raises(ConfigError) as api:
        Policy(write=Rules(allow=["ok", "../x"]))
    assert (api.value.file, api.value.line) == ("write.allow[1]", None)
    with pytest.raises(ConfigError) as file:
        Policy(Rules(deny=[Rule("a[", "fsjail.toml", 7)]))
    assert (file.value.file, file.value.line) == ("fsjail.toml", 7)
    assert str(file.value).startswith("fsjail.toml:7: read.deny[0] 'a[' cannot work: ")


def test_a_list_of_comments_is_an_error():
    with pytest.raises(ConfigError, match=r"read\.allow.*nothing but comments"):
        Policy(Rules(allow=["# src/"]))
    assert Policy(Rules(allow=["# where the code is", "src/"])).check("read", "src/a").why == "read.allow[1]"


@pytest.mark.parametrize("given_", ["src/", b"src/", [1], [None]])
def test_rules_are_lists_of_text(given_):
    with pytest.raises(TypeError):
        Rules(allow=given_)


WARNINGS = [
    ({"deny": ["!a", "b"]}, ["read.deny[0]"]),
    ({"deny": ["secrets/", "!secrets/public"]}, ["read.deny[1]"]),
    ({"deny": ["secrets/", "!secrets/*.pub"]}, ["read.deny[1]"]),
    ({"deny": ["a/b/", "!a/b/c/d"]}, ["read.deny[1]"]),
    ({"deny": ["secrets/*", "!secrets/public"]}, []),
    ({"deny": ["secrets/", "!**/public"]}, []),
    ({"deny": ["secrets/", "!secrets/", "!secrets/a"]}, []),
    ({"deny": ["# x", "!a", "b"]}, ["read.deny[1]"]),
    ({"allow": ["!a", "b"]}, ["read.allow[0]"]),
    ({"allow": ["src/", "!src/a"]}, []),
]


@pytest.mark.parametrize(("lists", "places"), WARNINGS)
def test_warnings(lists, places):
    warnings = Policy(Rules(**lists)).warnings
    assert [warning.partition(":")[0] for warning in warnings] == places
    assert all("no effect" in warning for warning in warnings)


# ── specs of pathspec ──────────────────────────────────────────────────────────────────────────


def test_a_pathspec_spec_is_a_list():
    pathspec = pytest.importorskip("pathspec")
    for spec in (
        pathspec.GitIgnoreSpec.from_lines(["# c", "*.key", "!a.key"]),
        pathspec.PathSpec.from_lines("gitignore", ["# c", "*.key", "!a.key"]),
        pathspec.PathSpec.from_lines("gitignore", [b"# c", b"*.key", b"!a.key"]),
    ):
        policy = Policy(Rules(deny=spec), presets=())
        assert policy.check("read", "b.key").why == "read.deny[1]"
        assert policy.check("read", "a.key")


def test_a_spec_without_gitignore_text_is_an_error():
    pattern = pytest.importorskip("pathspec.pattern")
    for patterns in ([pattern.RegexPattern("^a$")], [object()]):
        with pytest.raises(ConfigError, match="no gitignore text"):
            Rules(deny=SimpleNamespace(patterns=patterns))


def test_our_patterns_in_pathspec():
    pathspec = pytest.importorskip("pathspec")
    ours = pytest.importorskip("fsjail.pathspec")
    lines = ["*.log", "a?b", "build/", "!keep.log", "# c"]
    spec = ours.PathSpec.from_lines("fsjail", lines)
    names = ["x.log", "aéb", "axb", "build", "build/", "build/x", "keep.log", "d/keep.log"]
    assert [spec.match_file(name) for name in names] == [True, False, True, False, True, True, False, False]
    assert pathspec.PathSpec.from_lines("fsjail", lines, backend="simple").match_file("axb")
    with pytest.raises(TypeError, match="backend"):
        pathspec.PathSpec(spec.patterns, backend="re2" if _has_re2() else "hyperscan").match_file("x")
    first = ours.GitPattern(b"*.log")
    assert first.match_file(b"x.log") is True
    assert first.include is True
    assert ours.GitPattern("# c").include is None
    for clone in (copy.copy(first), copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        assert clone == first
        assert hash(clone) == hash(first)
    assert first != ours.GitPattern("x")
    assert first != "*.log"
    with pytest.raises(TypeError, match="text"):
        ours.GitPattern("x", include=True)
    with pytest.raises(ValueError, match="not closed"):
        ours.GitPattern("[")
    assert Policy(Rules(deny=spec), presets=()).check("read", "x.log").why == "read.deny[0]"


def _has_re2():
    try:
        import re2  # noqa: F401
    except ImportError:
        return False
    return True


# ── decisions and their sentences ──────────────────────────────────────────────────────────────


def test_a_decision_is_a_truth_and_a_sentence():
    policy = Policy(
        Rules(deny=[Rule(".env*", "/home/me/p/fsjail.toml", 3)]), Rules(allow=["src/", "notes/*.md"])
    )
    denied = policy.check("read", ".env.local")
    assert not denied
    assert (denied.op, denied.path, denied.resolved) == ("read", ".env.local", None)
    assert str(denied) == (
        "read '.env.local' is denied: read.deny[0] is the rule '.env*' of fsjail.toml line 3; "
        "what no rule denies can be read."
    )
    assert str(policy.check("write", "x")) == (
        "write 'x' is denied: no rule covers it (write.allow: no rule); "
        "writing is allowed in: src/, notes/*.md."
    )
    assert str(policy.check("write", "src/x")) == (
        "write 'src/x' is allowed (write.allow[0]), by the rule 'src/' of write.allow."
    )
    assert str(policy.check("read", "x")) == "read 'x' is allowed (default)."


SENTENCES = [
    (Policy(), "write", "x", "nothing can be written in this jail."),
    (Policy(write=Rules(allow=[])), "write", "x", "writing is allowed nowhere."),
    (Policy(write=Rules(allow=[f"d{n}/" for n in range(10)])), "write", "x", "d6/, d7/, and 2 more."),
    (Policy(Rules(allow=["docs/"]), Rules(allow=["*"])), "edit", "x", "reading is allowed in: docs/."),
    (
        Policy(),
        "read",
        "../x",
        "the path leads out of the root (jail: outside); paths are relative to the root.",
    ),
    (
        Policy(),
        "read",
        "a\0",
        "cannot be the name of a file (jail: invalid name); paths are relative to the root.",
    ),
    (
        Policy(),
        "delete",
        ".",
        "the root itself stays as it is (jail: root); nothing can be written in this jail.",
    ),
    (
        Policy(),
        "read",
        ".fsjail/x",
        "fsjail's own files cannot be reached (builtin); what no rule denies can be read.",
    ),
]


@pytest.mark.parametrize(("policy", "op", "path", "ending"), SENTENCES)
def test_a_refusal_says_what_is_allowed(policy, op, path, ending):
    sentence = str(policy.check(op, path))
    assert sentence.endswith(ending)
    assert "\n" not in sentence


def test_a_decision_about_something_beneath():
    policy = Policy(Rules(deny=[".env"]))
    verdict = policy.judge("read", "p/.env", False)
    decision = policy.decision("copy", "p", verdict, resolved="p", below="p/.env")
    assert decision.why == "read.deny[0] on p/.env"
    assert decision.resolved == "p"
    assert "(beneath it: 'p/.env')" in str(decision)
    other = policy.decision("move", "a", Verdict(allowed=False, why="jail: elsewhere"))
    assert "the jail cannot do this (jail: elsewhere)" in str(other)


def test_a_hostile_name_stays_on_one_line_and_short():
    sentence = str(Policy(Rules(allow=[])).check("read", "a\nb\x1b[2J\udcff" + "x" * 3000))
    assert sentence.isprintable()
    assert len(sentence) < 500


def test_errors_from_decisions():
    policy = Policy()
    assert isinstance(AccessDenied.of(policy.check("read", "../x")), OutOfBounds)
    denied = AccessDenied.of(policy.check("read", ".env"))
    assert isinstance(denied, PolicyDenied)
    assert pickle.loads(pickle.dumps(denied.decision)) == denied.decision


# ── a policy as a value ────────────────────────────────────────────────────────────────────────


def test_a_policy_is_a_value():
    policy = (
        Policy(Rules(deny=["a"]), Rules(allow=["b"]))
        .guarded([("read", "/s/")])
        .tightened(Policy(Rules(deny=["c"])))
    )
    for clone in (pickle.loads(pickle.dumps(policy)), copy.copy(policy), copy.deepcopy(policy)):
        assert clone == policy
        assert hash(clone) == hash(policy)
        assert [clone.check("read", name).why for name in ("a", "c", "s/x")] == [
            "read.deny[0]",
            "read.deny[0]",
            "builtin",
        ]
    assert policy != Policy()
    assert policy != "policy"
    assert repr(Policy(Rules(), presets=())) == (
        "Policy(read=Rules(allow=None, deny=()), write=Rules(allow=None, deny=()), presets=())"
    )
    with pytest.raises(AttributeError, match="cannot be changed"):
        policy.read = Rules()
    with pytest.raises(AttributeError, match="cannot be changed"):
        del policy.read
    rules = Rules(allow=["a"], deny=["b"])
    assert pickle.loads(pickle.dumps(rules)) == rules
    assert eval(repr(rules).replace("Rules(", "_again(")) == rules


def _again(allow, deny):
    return Rules(allow=allow, deny=deny)


def test_the_memory_is_bounded(monkeypatch):
    monkeypatch.setattr("fsjail._answers._MEMORY", 20_000)
    policy = Policy(Rules(deny=["x*"]))
    for number in range(200):
        assert policy.judge("read", f"d{number}/f{number}", False).allowed
        assert not policy.judge("read", f"d{number}/x{number}", False).allowed
        assert len(policy._known) <= 100
    deep = "/".join("d" * 400)
    assert policy.judge("read", deep, False).allowed
    assert not policy.judge("read", f"{deep}/x", False).allowed


def test_the_answers_for_combinations_are_bounded(monkeypatch):
    monkeypatch.setattr("fsjail._answers._COMBINATIONS", 2)
    policy = Policy(Rules(deny=["a*", "*b", "[c]*"]), presets=())
    for name, allowed in (
        ("ab", False),
        ("c", False),
        ("cb", False),
        ("ax", False),
        ("x", True),
        ("cb2", False),
    ):
        assert policy.judge("read", name, False).allowed is allowed


def test_a_deep_name_is_no_recursion():
    policy = Policy(Rules(deny=["x"]))
    assert policy.check("read", "a/" * 2000 + "b")
    assert not policy.check("read", "a/" * 2000 + "X/b")


# ── properties ─────────────────────────────────────────────────────────────────────────────────

PIECES = ["a", "b", "A", "é", "É", "*", "**", "a*", "?", "[ab]", "[!a]", "ab", "*.b"]
NAMES_ = ["a", "b", "A", "B", "é", "E\u0301", "ab", "a.b", "\udcff"]
patterns = st.builds(
    lambda bang, start, pieces, end: bang + start + "/".join(pieces) + end,
    st.sampled_from(["", "", "", "!"]),
    st.sampled_from(["", "", "/"]),
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=3),
    st.sampled_from(["", "", "/"]),
)
lists = st.lists(patterns, min_size=1, max_size=5)
names = st.lists(st.sampled_from(NAMES_), min_size=1, max_size=4).map("/".join)
kinds = st.sampled_from([True, False, None])


@given(lists, patterns, names, kinds)
@settings(max_examples=300)
def test_one_more_denial_never_allows_more(deny, rule, name, is_dir):
    assume(not rule.startswith("!"))
    before = Policy(Rules(deny=deny), presets=())
    after = Policy(Rules(deny=[*deny, rule]), presets=())
    assert before.judge("read", name, is_dir).allowed >= after.judge("read", name, is_dir).allowed


@given(lists, lists, names, kinds)
@settings(max_examples=300)
def test_reading_denied_is_writing_denied(read, write, name, is_dir):
    policy = Policy(Rules(deny=read), Rules(allow=["*"], deny=write), presets=())
    assert policy.judge("read", name, is_dir).allowed >= policy.judge("write", name, is_dir).allowed


@given(lists, names, kinds)
@settings(max_examples=300)
def test_not_knowing_the_type_never_allows_more(rules, name, is_dir):
    for policy in (Policy(Rules(deny=rules), presets=()), Policy(Rules(allow=rules), presets=())):
        unknown = policy.judge("read", name, None).allowed
        assert policy.judge("read", name, is_dir).allowed >= unknown


@given(lists, names, names, kinds)
@settings(max_examples=300)
def test_nothing_below_a_denied_name_is_allowed(rules, name, below, is_dir):
    policy = Policy(Rules(deny=rules), presets=())
    if not policy.judge("read", name, True).allowed:
        assert not policy.judge("read", f"{name}/{below}", is_dir).allowed


@given(lists, names, kinds)
@settings(max_examples=300)
def test_a_respelled_name_is_denied_with_its_original(rules, name, is_dir):
    positive = [rule for rule in rules if not rule.startswith("!")]
    assume(positive)
    policy = Policy(Rules(deny=positive), presets=())
    if not policy.judge("read", name, is_dir).allowed and "\udcff" not in name:
        original = unicodedata.normalize("NFC", name).casefold()
        assume(not any(symbol in rule for rule in positive for symbol in "?[") or name.isascii())
        assert not policy.judge("read", original, is_dir).allowed or name == original


@given(lists, names, st.data())
@settings(max_examples=300)
def test_what_is_allowed_lies_below_what_may_contain_it(allow, name, data):
    policy = Policy(Rules(allow=allow), presets=())
    if policy.judge("read", name, data.draw(kinds)).allowed:
        parts = name.split("/")
        assert all(policy.may_contain("/".join(parts[:depth])) for depth in range(1, len(parts)))
        assert policy.may_contain(".")


@given(
    names,
    st.lists(st.sampled_from(["./", "/", "x/../", "a/./../"]), max_size=3),
    st.sampled_from(["", "/", "/."]),
)
def test_normalisation(name, detours, end):
    policy = Policy(Rules(deny=["a/b", "A"]), presets=())
    written = "/".join(part + "/" * (n % 2) for n, part in enumerate(name.split("/")))
    path = "".join(detours).lstrip("/") + written.rstrip("/") + end
    assert policy.check("read", path, is_dir=True).allowed is policy.judge("read", name, True).allowed


WORDS = [
    "a",
    "b",
    "ab",
    "A",
    "Ab",
    "a.b",
    "a.B",
    "x.tar.b",
    ".b",
    "b.",
    "é",
    "E\u0301",
    "\udcff",
    "aXb",
    "abab",
    "Z9",
]
more_pieces = [*PIECES, "*b", "*a*", "a*b", "*.B", "A*", "*.", "?b", "*é", "a.*", "*.tar.b", "*bab"]
more_patterns = st.builds(
    lambda bang, start, pieces, end: bang + start + "/".join(pieces) + end,
    st.sampled_from(["", "", "", "!"]),
    st.sampled_from(["", "", "/"]),
    st.lists(st.sampled_from(more_pieces), min_size=1, max_size=2),
    st.sampled_from(["", "", "/"]),
)
more_lists = st.lists(more_patterns, min_size=1, max_size=6)


@given(
    more_lists,
    st.none() | more_lists,
    st.sampled_from([".", *WORDS]) | names,
    st.sets(st.sampled_from(WORDS)),
)
@example(["A/*"], None, "A", {"b", "B"})
@example(["a/*", "!a/b"], ["A/"], "A", {"b", "B"})
@settings(max_examples=200)
def test_many_files_at_once_are_judged_like_one_by_one(deny, allow, folder, files):
    policy = Policy(Rules(allow=allow, deny=deny))
    prefix = "" if folder == "." else f"{folder}/"
    one_by_one = [name for name in files if policy.judge("read", prefix + name, False).allowed]
    assert policy.readable(folder, files) == one_by_one
    assert Policy(Rules(allow=allow, deny=deny)).readable(folder, files) == one_by_one, "without a memory too"


@given(lists, names, kinds)
def test_a_copy_answers_alike(rules, name, is_dir):
    policy = Policy(Rules(deny=rules), Rules(allow=rules), presets=())
    clone = pickle.loads(pickle.dumps(policy))
    for access in ("read", "write"):
        assert clone.judge(access, name, is_dir) == policy.judge(access, name, is_dir)


def test_order_of_asking_does_not_matter():
    rng = random.Random(7)
    policy = Policy(Rules(deny=["a/*", "!a/b", "*.B", "É"]), Rules(allow=["*", "!c/"]), presets=())
    asked = [
        ("/".join(rng.choices(NAMES_, k=rng.randint(1, 4))), rng.choice([True, False, None]))
        for _ in range(500)
    ]
    first = {key: policy.judge("write", *key) for key in asked}
    for name, is_dir in rng.sample(asked, len(asked)):
        fresh = Policy(policy.read, policy.write, presets=())
        assert fresh.judge("write", name, is_dir) == first[name, is_dir]


def test_the_engine_alone():
    assert Answers([]).find("a", False)[0].allowed
    assert isinstance(Policy().check("read", "a"), Decision)
