"""Configuration files: what they say, what they may not say, and where an error stands."""

from __future__ import annotations

import errno
import importlib.resources
import json
import os
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsjail import ConfigError, Limits, Policy
from fsjail._keys import EXPECT_KEYS, EXPORTERS, KEYS, OPERATIONS, PRESETS, RECORDS
from fsjail._toml import lines_of
from fsjail.config import Expect, load

DESIGN = """\
actor = "agent-7"
drop_presets = ["toolchain"]
[read]
deny = ["private/", "*.sqlite"]
[write]
allow = ["src/", "tests/", "docs/"]
deny = ["*.lock"]
[limits]                       # all optional
max_read_bytes = "10 MiB"
max_write_bytes = "50 MiB"
max_total_bytes = "2 GiB"
max_results = 10_000
max_seconds = 30
[trash]
location = "../kept"
keep_days = 30
keep_bytes = "5 GiB"
[audit]
record = "all"
required = true
max_bytes = "1 MiB"
keep = 3
export = ["logging", "otel"]
[watch]
tripwires = ["~/.ssh", "~/.aws"]
[[expect]]
op = "read"
path = "private/key.txt"
allowed = false
[[expect]]
op = "move"
path = "src/a"
to = "docs/a"
allowed = true
"""


@pytest.fixture
def root(base, home) -> Path:
    return base / "root"


def _write(folder: Path, text: str, name: str = "fsjail.toml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, "utf-8")
    return folder


def _over(home: Path, text: str, whose: str = "config") -> None:
    _write(home / whose / "fsjail", text)


def _fails(root: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(root)
    return caught.value


def test_every_key(root):
    settings = load(_write(root, DESIGN))
    assert settings.root == root
    assert settings.actor == "agent-7"
    assert settings.limits == Limits(10 * 2**20, 50 * 2**20, 2 * 2**30, 10_000, 30)
    assert (settings.keep_days, settings.keep_bytes) == (30, 5 * 2**30)
    assert settings.trash_location == str(root.parent / "kept")
    assert (settings.record, settings.required) == ("all", True)
    assert (settings.log_bytes, settings.log_files) == (2**20, 3)
    assert settings.export == ("logging", "otel")
    assert settings.tripwires == ("~/.ssh", "~/.aws")
    assert settings.expects == (
        Expect("read", "private/key.txt", allowed=False, file="fsjail.toml", line=26),
        Expect("move", "src/a", allowed=True, to="docs/a", file="fsjail.toml", line=30),
    )
    assert settings.sources == ("fsjail.toml",)
    policy = settings.policy
    assert policy.check("write", "src/a")
    assert policy.check("write", "src/.envrc"), "the toolchain preset was dropped"
    assert not policy.check("write", "src/.git/config")
    assert not policy.check("read", "a.pem")


def test_a_rule_knows_its_file_and_line(root):
    policy = load(_write(root, '[read]\ndeny = [\n  "a",\n  "private/", # the second\n]\n')).policy
    decision = policy.check("read", "private/x")
    assert decision.rule is not None
    assert (decision.rule.pattern, decision.rule.source, decision.rule.line) == ("private/", "fsjail.toml", 4)
    assert "fsjail.toml line 4" in str(decision)


def test_no_file_is_the_default_policy(root):
    settings = load(root)
    assert settings.root == root
    assert settings.policy.check("read", "a")
    assert not settings.policy.check("write", "a")
    assert not settings.policy.check("read", ".env")
    assert settings.sources == ()


@pytest.mark.parametrize(("text", "readable"), [("", True), ("[read]\nallow = []", False), ("[read]", True)])
def test_an_absent_list_is_not_an_empty_one(root, text, readable):
    policy = load(_write(root, text)).policy
    assert bool(policy.check("read", "a")) is readable
    assert not policy.check("write", "a")


class TestSearch:
    def test_the_folder_with_the_file_is_the_root(self, root):
        _write(root, "")
        below = root / "a" / "b"
        below.mkdir(parents=True)
        assert load(below).root == root

    def test_the_nearest_wins(self, root):
        _write(root, "")
        assert load(_write(root / "a", "[tool.fsjail]", "pyproject.toml")).root == root / "a"

    def test_fsjail_toml_wins_over_pyproject(self, root):
        _write(root, "[tool.fsjail]\nactor = 'b'", "pyproject.toml")
        assert load(_write(root, "actor = 'a'")).actor == "a"

    def test_a_pyproject_that_is_not_for_us_is_passed(self, root):
        _write(root, "")
        for name, text in {"a": "[project]\nname = 'x'", "b": "tool = 1", "c": "[tool.other]"}.items():
            assert load(_write(root / name, text, "pyproject.toml")).root == root

    def test_a_folder_reached_by_a_link_is_itself(self, root):
        _write(root / "real", "actor = 'real'")
        _write(root, "actor = 'above'")
        (root / "link").symlink_to("real")
        assert load(root / "link").root == root / "real"

    def test_the_current_folder(self, root, monkeypatch):
        monkeypatch.chdir(_write(root, ""))
        assert load().root == root

    def test_a_missing_folder(self, root):
        with pytest.raises(FileNotFoundError):
            load(_write(root, "") / "missing")
        with pytest.raises(NotADirectoryError):
            load(root / "fsjail.toml")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
    def test_another_users_file_above_is_refused(self, base, home):
        _write(base, "")
        os.chown(base / "fsjail.toml", 12345, -1)
        assert "another user" in str(_fails(base / "root"))
        os.chown(base / "root", 12345, -1)
        assert load(base / "root").root == base, "who owns the start may own what is above"


class TestPyproject:
    def test_keys_and_lines(self, root):
        _write(root, '[project]\nname = "x"\n[tool.fsjail.read]\ndeny = ["d"]\n', "pyproject.toml")
        rule = load(root).policy.check("read", "d").rule
        assert rule is not None
        assert (rule.source, rule.line) == ("pyproject.toml", 4)

    def test_the_agent_cannot_rewrite_its_rules(self, root):
        _write(root, "tool.fsjail.write.allow = ['*']", "pyproject.toml")
        policy = load(root).policy
        assert not policy.check("write", "pyproject.toml")
        assert policy.check("read", "pyproject.toml")
        assert policy.check("write", "sub/pyproject.toml")

    def test_it_may_be_written_where_it_holds_no_rules(self, root):
        _write(root, "[project]", "pyproject.toml")
        assert load(_write(root, "[write]\nallow = ['*']")).policy.check("write", "pyproject.toml")

    def test_not_a_table(self, root):
        error = _fails(_write(root, "\n[tool]\nfsjail = 3", "pyproject.toml"))
        assert str(error) == "pyproject.toml:3: tool.fsjail must be a table, not an integer"


LINES = [
    ("raed = 1", 1, "unknown key 'raed'; did you mean 'read'?"),
    ("\n[read]\ndney = ['a']", 3, "unknown key 'dney' in [read]; did you mean 'deny'?"),
    ("[read]\nx.y = 1", 2, "unknown key 'x' in [read]; known here: allow, deny"),
    ("\n\n'read.deny' = ['a']", 3, "unknown key 'read.deny'"),
    ("[limits]\n\nmax_read_byte = 1", 3, "did you mean 'max_read_bytes'?"),
    ("[other]\na = 1", 1, "unknown key 'other'"),
    ("read = 1", 1, "read must be a table, not an integer"),
    ("\nread = ['a']", 2, "read must be a table, not an array"),
    ("[read]\ndeny = 'a'", 2, "read.deny must be an array, not a string"),
    ("[read]\ndeny = [\n 'a',\n\n # 'x',\n 1.5]", 6, "must be a string, not a float"),
    ("read.deny = [['a']]", 1, "must be a string, not an array"),
    ("[write]\nallow = ['a',\n1979-05-27]", 3, "must be a string, not a date or time"),
    ("actor = true", 1, "actor must be a string, not a boolean"),
    ("actor = ''", 1, "actor must be a printable text"),
    ('actor = "a\\nb"', 1, "actor must be a printable text"),
    ("drop_presets = ['vcs',\n'sercets']", 2, "must be one of: secrets, vcs, toolchain"),
    ("audit.record = 'none'", 1, "audit.record must be one of: denied+changes, all"),
    ("audit.required = 1", 1, "audit.required must be true or false, not an integer"),
    ("audit.max_bytes = 0", 1, "audit.max_bytes must be a whole number above 0"),
    ("audit.keep = 0", 1, "audit.keep must be a whole number above 0"),
    ("audit.export = ['syslog']", 1, "audit.export.0 must be one of: logging, otel"),
    ("audit.export = 'otel'", 1, "audit.export must be an array, not a string"),
    ("[limits]\nmax_read_bytes = '10 MiBs'", 2, 'must be a size such as 10_000, "10 MiB"'),
    ("[limits]\nmax_read_bytes = '-1'", 2, "must be a size"),
    ("[limits]\nmax_read_bytes = 1.5", 2, "must be a whole number above 0, not a float"),
    ("[limits]\nmax_read_bytes = true", 2, "not a boolean"),
    ("[limits]\nmax_read_bytes = 0", 2, "must be a whole number above 0"),
    ("[limits]\nmax_read_bytes = '0 B'", 2, "must be a whole number above 0"),
    (f"[limits]\nmax_read_bytes = '{'9' * 400}'", 2, "below 2**63"),
    (f"[limits]\nmax_results = {'9' * 400}", 2, "below 2**63"),
    ("[limits]\nmax_results = '5'", 2, "must be a whole number above 0, not a string"),
    ("[limits]\nmax_seconds = nan", 2, "max_seconds must be a number above 0"),
    ("[limits]\nmax_seconds = inf", 2, "max_seconds must be a number above 0"),
    ("[limits]\nmax_seconds = -0.0", 2, "max_seconds must be a number above 0"),
    ("[trash]\nkeep_days = -1", 2, "trash.keep_days must be a number of at least 0"),
    ("[trash]\nlocation = 'kept'", 2, "must lie outside the root"),
    ("[trash]\nlocation = '../root/kept'", 2, "must lie outside the root"),
    ("[watch]\ntripwires = ['/etc',\n'.ssh']", 3, "must begin with / or ~"),
    ("[watch]\nunexplained = 'no'", 2, "watch.unexplained must be true or false, not a string"),
    ("expect = 1", 1, "expect must be an array"),
    ("[expect]\nop = 'read'", 1, "expect must be an array, not a table"),
    ("[[expect]]\nop = 'read'\npath = 'a'", 1, "needs 'allowed'"),
    ("[[expect]]\nop = 'raed'\npath = 'a'\nallowed = true", 2, "must be one of: read, list"),
    ("[[expect]]\nop = 'move'\npath = 'a'\nallowed = true", 1, "needs 'to'"),
    ("[[expect]]\nop = 'read'\npath = 'a'\nallowed = true\nto = 'b'", 5, "'to' belongs to copy and move"),
    ("[[expect]]\n\nof = 'read'", 3, "unknown key 'of' in [[expect]]"),
    ("a = 1\na = 2", 2, "overwrite"),
    ("\n[read\n", 2, ""),
    ("a = ", 1, ""),
    ("a = '''\n\n", 3, ""),
    ("[read]\ndeny = ['a',\n'..', 'b']", 3, ""),
    ("[read]\ndeny = ['a',\n\n'x[', 'b']", 4, ""),
    ("[write]\nallow = ['a//b']", 2, ""),
    ("[write]\n\nallow = ['# only', '']", 3, ""),
]


@pytest.mark.parametrize(("text", "line", "message"), LINES, ids=[text for text, *_ in LINES])
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_an_error_names_file_and_line(root, text, line, message, newline):
    (root / "fsjail.toml").write_bytes(text.replace("\n", newline).encode())
    error = _fails(root)
    assert (error.file, error.line) == ("fsjail.toml", line), str(error)
    assert message in error.message
    assert str(root.parent) not in str(error)


def test_a_value_is_not_repeated(root):
    error = _fails(_write(root, "actor = ['hunter2']\n"))
    assert "hunter2" not in str(error)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("1", 1),
        ("10_000", 10_000),
        ("'10_000'", 10_000),
        ("'12 B'", 12),
        ("'10 MiB'", 10 * 2**20),
        ("'2GiB'", 2 * 2**30),
        ("'1.5 KiB'", 1536),
        ("'3 kB'", 3000),
        ("'1 TB'", 10**12),
    ],
)
def test_sizes(root, written, size):
    assert load(_write(root, f"limits.max_read_bytes = {written}")).limits.max_read_bytes == size


class TestFiles:
    def test_not_utf8(self, root):
        (root / "fsjail.toml").write_bytes(b"# \xc3\xa4\n\n# \xe4\n")
        error = _fails(root)
        assert (error.file, error.line) == ("fsjail.toml", 3)
        assert "UTF-8" in error.message

    def test_a_byte_order_mark_is_no_key(self, root):
        (root / "fsjail.toml").write_bytes(b"\xef\xbb\xbfactor = 'a'")
        assert _fails(root).line == 1

    def test_a_fifo_does_not_hang(self, root):
        os.mkfifo(root / "fsjail.toml")
        began = time.monotonic()
        assert "no regular file" in str(_fails(root))
        assert time.monotonic() - began < 0.5

    def test_a_folder(self, root):
        (root / "fsjail.toml").mkdir()
        assert "no regular file" in str(_fails(root))

    def test_a_link(self, root):
        """The agent may write `src/`; rules that stand there would be its own."""
        _write(root / "src", "[write]\nallow = ['*']", "rules.toml")
        (root / "fsjail.toml").symlink_to("src/rules.toml")
        assert "symbolic link" in str(_fails(root))

    def test_a_link_that_dangles_is_no_missing_file(self, root):
        (root / "fsjail.toml").symlink_to("missing")
        assert "cannot be followed" in str(_fails(root))

    def test_a_linked_pyproject_only_without_rules(self, root):
        _write(root / "src", "[project]", "p.toml")
        (root / "pyproject.toml").symlink_to("src/p.toml")
        assert load(root).sources == ()
        _write(root / "src", "[tool.fsjail]", "p.toml")
        assert "symbolic link" in str(_fails(root))

    def test_too_large(self, root):
        assert "larger than" in str(_fails(_write(root, "#" * (2**20 + 1))))

    @pytest.mark.parametrize("text", ["a = " + "[" * 20_000, "a = " + "9" * 5000])
    def test_beyond_the_grammar(self, root, text):
        assert "cannot be parsed" in str(_fails(_write(root, text)))

    def test_unreadable(self, root, monkeypatch):
        def refuse(path, *_args):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

        monkeypatch.setattr(os, "open", refuse)
        error = _fails(root)
        assert str(error) == "fsjail.toml: cannot be read: Permission denied"


class TestUserAndSite:
    def test_denials_add_up(self, root, home):
        _over(home, "[read]\ndeny = ['user']\n[write]\ndeny = ['locked']")
        _over(home, "[read]\ndeny = ['site']", "site")
        settings = load(_write(root, "[read]\ndeny = ['own']\n[write]\nallow = ['*']"))
        policy = settings.policy
        for name in ("own", "user", "site"):
            assert not policy.check("read", name)
        assert policy.check("read", "locked")
        assert not policy.check("write", "locked")
        assert policy.check("write", "other")
        rule = policy.check("read", "user").rule
        assert rule is not None
        assert (rule.source, rule.line) == ("user fsjail.toml", 2)
        assert settings.sources == ("fsjail.toml", "user fsjail.toml", "site fsjail.toml")

    def test_they_hold_without_a_project_file(self, root, home):
        _over(home, "read.deny = ['user']\nlimits.max_results = 5")
        settings = load(root)
        assert not settings.policy.check("read", "user")
        assert settings.limits.max_results == 5

    def test_an_exception_does_not_open_the_projects_denial(self, root, home):
        _over(home, "read.deny = ['own', '!own', '!.env', '!a.pem']")
        policy = load(_write(root, "read.deny = ['own']")).policy
        for name in ("own", ".env", "a.pem"):
            assert not policy.check("read", name)

    def test_the_smaller_limit_holds(self, root, home):
        _over(home, "[limits]\nmax_read_bytes = 5\nmax_seconds = 60")
        _over(home, "[limits]\nmax_read_bytes = 7\nmax_total_bytes = 9", "site")
        limits = load(_write(root, "[limits]\nmax_read_bytes = '200 MiB'\nmax_seconds = 45")).limits
        assert limits == Limits(max_read_bytes=5, max_total_bytes=9, max_seconds=45)

    def test_an_unset_limit_does_not_lower(self, root, home):
        _over(home, "[limits]\nmax_seconds = 10")
        assert load(_write(root, "limits.max_read_bytes = '1 GiB'")).limits.max_read_bytes == 2**30

    def test_the_log_and_tripwires(self, root, home):
        _over(home, "[audit]\nrecord = 'all'\n[watch]\ntripwires = ['~/.ssh', '/etc']")
        _over(
            home, "[audit]\nrequired = true\nrecord = 'denied+changes'\nexport = ['otel', 'logging']", "site"
        )
        settings = load(
            _write(root, "watch.tripwires = ['~/.ssh']\naudit.required = false\naudit.export = ['logging']")
        )
        assert (settings.record, settings.required) == ("all", True)
        assert settings.export == ("logging", "otel")
        assert settings.tripwires == ("~/.ssh", "/etc")

    @pytest.mark.parametrize("whose", ["config", "site"])
    def test_what_a_watch_tells_can_only_grow(self, root, home, whose):
        assert load(root).unexplained
        assert not load(_write(root, "watch.unexplained = false")).unexplained
        _over(home, "watch.unexplained = true", whose)
        assert load(root).unexplained
        _over(home, "watch.unexplained = false", whose)
        assert load(_write(root, "watch.unexplained = true")).unexplained

    @pytest.mark.parametrize("key", sorted(name for name, (_, tightens) in KEYS.items() if not tightens))
    @pytest.mark.parametrize("whose", ["config", "site"])
    def test_what_could_loosen_is_refused(self, root, home, key, whose):
        _over(home, f"\n{key} = 1", whose)
        error = _fails(root)
        assert error.line == 2
        assert "can only tighten" in error.message

    def test_errors_name_the_file(self, root, home):
        _over(home, "\nread.dney = []")
        assert str(_fails(root)).startswith("user fsjail.toml:2: unknown key")

    def test_a_link_is_followed(self, root, home):
        """People keep their dot-files elsewhere; no agent writes there."""
        _write(home / "dotfiles", "read.deny = ['user']", "x.toml")
        (home / "config" / "fsjail").mkdir()
        (home / "config" / "fsjail" / "fsjail.toml").symlink_to(home / "dotfiles" / "x.toml")
        assert not load(root).policy.check("read", "user")


class TestLimits:
    def test_defaults(self):
        assert Limits() == Limits(100 * 2**20, None, None, 100_000, 30.0)

    @pytest.mark.parametrize("value", [0, -1, True, "5", 1.5, float("nan")])
    def test_what_cannot_be(self, value):
        with pytest.raises(ConfigError, match="max_read_bytes must be a positive whole number"):
            Limits(max_read_bytes=value)
        if value != 1.5:
            with pytest.raises(ConfigError, match="max_seconds must be a positive number"):
                Limits(max_seconds=value)

    def test_tightened(self):
        loose, strict = Limits(9, None, 3, None, 2.5), Limits(5, 7, None, None, 4)
        assert loose.tightened(strict) == strict.tightened(loose) == Limits(5, 7, 3, None, 2.5)


class TestSchema:
    """The schema is for editors; what counts is the reader, and both must say the same."""

    schema = json.loads(importlib.resources.files("fsjail").joinpath("fsjail.schema.json").read_text("utf-8"))

    def test_keys_agree(self):
        keys = set()
        for name, entry in self.schema["properties"].items():
            keys |= {f"{name}.{key}" for key in entry["properties"]} if "properties" in entry else {name}
        assert keys == set(KEYS)
        expect = self.schema["properties"]["expect"]["items"]
        assert set(expect["properties"]) == set(EXPECT_KEYS)

    def test_every_table_is_closed(self):
        tables = [
            self.schema,
            *self.schema["properties"].values(),
            self.schema["properties"]["expect"]["items"],
        ]
        assert all(table["additionalProperties"] is False for table in tables if "properties" in table)

    def test_choices_agree(self):
        properties = self.schema["properties"]
        assert tuple(properties["drop_presets"]["items"]["enum"]) == PRESETS
        assert tuple(properties["audit"]["properties"]["record"]["enum"]) == RECORDS
        assert tuple(properties["audit"]["properties"]["export"]["items"]["enum"]) == EXPORTERS
        assert tuple(properties["expect"]["items"]["properties"]["op"]["enum"]) == OPERATIONS

    def test_presets_are_the_policys(self):
        Policy(presets=PRESETS)
        with pytest.raises(ConfigError):
            Policy(presets=["other"])

    @pytest.mark.parametrize("name", sorted(KEYS))
    def test_types_agree(self, root, name):
        """What the schema calls a type, the reader takes; another type, it refuses."""
        entry: dict[str, Any] = self.schema
        for part in name.split("."):
            entry = entry["properties"][part]
        entry = self.schema["$defs"].get(entry.get("$ref", "").rpartition("/")[2], entry)
        kinds = {part.get("type", "string") for part in entry.get("oneOf", [entry])}
        values = {
            "string": '"/x"',
            "boolean": "true",
            "integer": "5",
            "number": "5",
            "array": "[]",
            "object": "{}",
        }
        if "enum" in entry:
            values["string"] = json.dumps(entry["enum"][0])
        if name.endswith("bytes"):
            values["string"] = '"5 MB"'
        for kind, value in values.items():
            _write(root, f"{name} = {value}")
            if (
                kind in kinds
                or (kind == "integer" and "number" in kinds)
                or (kind == "number" and "integer" in kinds)
            ):
                load(root)
            else:
                _fails(root)


PLACES = '''\
# comment [not.a.table]
actor = "x" # [read]
a.b."c.d" = 1
'quo"ted' . k = """
[nor.this]
\\""" # "
"""
[read]
deny = [ # c ]
  "a]", 'b#',
  """x
y""""",
  ["n", 1979-05-27 07:32:00], {x = 1, "y\\u0041" = [2,
 3], z = {}},
  []
]
[[expect]]
op = "read"
[[expect]]
op = "w"
  [expect.sub]
  z = \'\'\'
q\'\'\'\'\'
[[expect.deep]]
v = -inf
[[expect.deep]]
v = 0x1F
[ "x y" . z ]
last = true'''


def _paths(value: object, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {path, *(found for key, item in below for found in _paths(item, (*path, key)))} - {()}


def test_places():
    lines = lines_of(PLACES)
    assert set(lines) == _paths(tomllib.loads(PLACES))
    for path, line in {
        ("actor",): 2,
        ("a", "b", "c.d"): 3,
        ('quo"ted', "k"): 4,
        ("read", "deny"): 9,
        ("read", "deny", 0): 10,
        ("read", "deny", 2): 11,
        ("read", "deny", 3): 13,
        ("read", "deny", 4): 13,
        ("read", "deny", 4, "yA", 1): 14,
        ("read", "deny", 5): 15,
        ("expect", 0): 17,
        ("expect", 1, "op"): 20,
        ("expect", 1, "sub", "z"): 22,
        ("expect", 1, "deep", 1, "v"): 27,
        ("x y", "z", "last"): 29,
    }.items():
        assert lines[path] == line, path
    assert lines_of(PLACES.replace("\n", "\r\n")) == lines


KEY = st.text(st.sampled_from("ab.-_\"'\\#[]= ä\n"), max_size=4)
TEXT = st.text(st.sampled_from("ab\"'\\#[]{},= \n\tä"), max_size=8)
VALUE = st.recursive(
    st.integers(-9, 9) | st.booleans() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEY, inner, max_size=3),
    max_leaves=12,
)
GAP = st.sampled_from(["", " ", "\n", " # ]\n", "\n\n\t"])


def _key(key: str) -> str:
    return (
        key if key and key.isascii() and key.replace("-", "").replace("_", "").isalnum() else json.dumps(key)
    )


def _dump(value: object, draw) -> str:
    """Write a value as TOML, in one of its many ways."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        forms = [
            json.dumps(value, ensure_ascii=False),
            '"""' + value.replace("\\", "\\\\").replace('"', '\\"') + '"""',
        ]
        forms += [f"'{value}'"] if not {"'", "\n"} & set(value) else []
        forms += [f"'''\n{value}'''"] if "'" not in value else []
        return draw(st.sampled_from(forms))
    if isinstance(value, list):
        items = [draw(GAP) + _dump(item, draw) + draw(GAP) for item in value]
        return "[" + ",".join(items) + draw(GAP) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {_dump(item, draw)}" for key, item in value.items()) + "}"
    return str(value)


@given(st.data())
def test_places_of_any_document(data):
    """Every path that the parser finds has a line, there is no other, and it shows the key."""
    document = data.draw(st.dictionaries(KEY, VALUE, max_size=4))
    text = ""
    for key, value in document.items():
        tables = isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
        text += data.draw(GAP).replace("]", "")
        text += "" if not text or text.endswith("\n") else "\n"
        if tables and data.draw(st.booleans()):
            text = _tables(text, key, value, data.draw)
        else:
            text += f"{_key(key)} = {_dump(value, data.draw)}\n"
    # Headers must come after the pairs of the top; a document where they do not is not this one.
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    lines = lines_of(text)
    assert set(lines) == _paths(parsed)
    rows = text.split("\n")
    for path, line in lines.items():
        if isinstance(path[-1], str):
            assert _key(path[-1]) in rows[line - 1]


def _tables(text: str, key: str, tables: list[dict[str, Any]], draw) -> str:
    for table in tables:
        text += f"[[{_key(key)}]]{draw(GAP)}\n"
        text += "".join(f"{_key(name)} = {_dump(value, draw)}\n" for name, value in table.items())
    return text
