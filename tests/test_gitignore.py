"""Patterns match what git matches; git itself is the oracle."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsjail._gitignore import Pattern, escape, parse
from fsjail._matcher import Matcher, compile_glob
from fsjail._policy import Policy, Rules
from fsjail._wildmatch import decode, encode, fold

# ── git as the oracle ──────────────────────────────────────────────────────────────────────────

GIT = ["git", "-c", "core.excludesFile=", "-c", "core.ignorecase=false", "check-ignore", "--no-index"]
SETS = 5000
PATHS = 8

COMPONENTS = [
    "a", "b", "c", "ab", "abc", "aab", "A", "aB", "foo", "foo.py", "Foo.py", ".a", ".env", "a.b", "a-b",
    "a b", " a", "a ", "a\n", "\n", "a\nb", "é", "É", "e\u0301", "café", "cafe\u0301", "ß", "日本", "\udcff",
    "a\udcff", "\udcc3", "[", "]", "[a]", "a]", "\\", "a\\", "*", "**", "a*b", "?", "-", "!", "!a", "#",
    "#a", "^", ":", "[:", "a:]", "1", "12", "\x01", "\x0b", "\x7f", "~", "a~", "secret", "x.tar.gz", "..a",
    "...",
]  # fmt: skip
CLASSES = [
    "[ab]", "[!ab]", "[^ab]", "[a-c]", "[c-a]", "[]a]", "[!]a]", "[]-a]", "[a-]", "[-a]", "[\\]a]",
    "[\\a-\\c]", "[a\\-c]", "[[:alpha:]]", "[[:upper:]]", "[![:space:]]", "[[:digit:]a]", "[[:alpha:]-z]",
    "[[:punct:]]", "[[:cntrl:]]", "[é]", "[É-é]", "[a/b]", "[/]", "[!/]", "[[a]", "[[:a]", "[[:]",
    "[[:alpha]", "[:alpha:]", "[a-[:digit:]]", "[", "[a", "[!", "[]", "[!]", "[[:foo:]]", "[[:alpha:",
    "[\\", "[--0]", "[^^]", "[!!]", "[A-Z]", "[Z-a]", "[\udcc3]", "[ ]", "[\n]",
]  # fmt: skip


class Case(NamedTuple):
    """One set of patterns in a directory of its own, and the names asked of it."""

    folder: str
    lines: list[str]
    paths: list[tuple[str, bool]]


def _pattern(rng: random.Random, paths: list[str]) -> str:
    """Make a pattern that is near one of the names."""
    parts = rng.choice(paths).split("/")
    if rng.random() < 0.6:
        start = rng.randrange(len(parts))
        parts = parts[start : start + rng.choice([1, 1, 1, 2, 3])]
    out = []
    for part in parts:
        text = part
        for _ in range(rng.choice([0, 0, 1, 1, 2])):
            at = rng.randrange(len(text) + 1)
            to = min(len(text), at + rng.choice([0, 1, 1, 2]))
            new = rng.choice(["*", "*", "?", "**", "\\", "", "***", rng.choice(CLASSES), rng.choice(CLASSES)])
            text = text[:at] + new + text[to:]
        roll = rng.random()
        if roll < 0.12:
            text = rng.choice(["**", "*", "***", "**\\", "\\**", "*\\", "?"])
        elif roll < 0.2:
            text = rng.choice([text.upper(), text.lower(), escape(text), "".join("\\" + c for c in text)])
        out.append(text)
    if rng.random() < 0.15:
        out.insert(rng.randrange(len(out) + 1), rng.choice(["**", "**", "*", "", ".", ".."]))
    line = ("!" if rng.random() < 0.2 else "") + ("/" if rng.random() < 0.2 else "") + "/".join(out)
    line += rng.choice(["", "", "", "", "/", "/", "/**", "/*", " ", "\\ ", "  ", "\\"])
    return line.replace("\n", "?").replace("\0", "")


def _cases(seed: int) -> list[Case]:
    rng = random.Random(seed)
    cases = []
    for number in range(SETS):
        pool = rng.sample(COMPONENTS, 8)
        kinds: dict[str, bool] = {}  # of every name, also of the directories above those asked for
        paths: dict[str, bool] = {}
        while len(paths) < PATHS:
            path = "/".join(rng.choice(pool) for _ in range(rng.choice([1, 1, 2, 2, 3, 4])))
            above = ["/".join(path.split("/")[:n]) for n in range(1, path.count("/") + 1)]
            if not all(kinds.get(name, True) for name in above):
                continue  # a file has nothing beneath it
            kinds |= dict.fromkeys(above, True)
            paths[path] = kinds.setdefault(path, rng.random() < 0.2)
        lines = [_pattern(rng, list(paths)) for _ in range(rng.choice([1, 2, 3, 4, 6]))]
        cases.append(Case(f"s{number}", lines, list(paths.items())))
    return cases


def _git(seed: int, folder: str) -> tuple[list[Case], list[list[int | None]]]:
    """Ask git: for each name the number of the rule that decides, None if there is none."""
    root = os.fsencode(folder)
    cases = _cases(seed)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": folder,
        "GIT_CONFIG_NOSYSTEM": "1",
        "LC_ALL": "C",
    }
    subprocess.run(["git", "init", "-q", "--template=", folder], env=env, check=True)
    asked = []
    for case in cases:
        base = os.path.join(root, os.fsencode(case.folder))
        os.mkdir(base)
        with open(base + b"/.gitignore", "wb") as file:
            file.write(b"".join(encode(line) + b"\n" for line in case.lines))
        for path in [path for path, is_dir in case.paths if is_dir]:
            os.makedirs(base + b"/" + encode(path), exist_ok=True)
        asked += [encode(f"{case.folder}/{path}") for path, _ in case.paths]
    done = subprocess.run(
        [*GIT, "-vnz", "--stdin"],
        cwd=folder, env=env, input=b"".join(path + b"\0" for path in asked), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode in {0, 1}, done.stderr
    fields = done.stdout.split(b"\0")[:-1]
    found = [
        int(line) - 1 if source else None for source, line in zip(fields[::4], fields[1::4], strict=True)
    ]
    assert fields[3::4] == asked
    answers, at = [], 0
    for case in cases:
        answers.append(found[at : at + len(case.paths)])
        at += len(case.paths)
    return cases, answers


@pytest.fixture(scope="module")
def oracle():
    if shutil.which("git") is None:
        pytest.skip("git is not installed, so there is nothing to compare with")
    # In memory where that is possible: it takes ten thousand directories.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        return _git(20240607, folder)


def _load(lines: list[str]) -> tuple[list[Pattern | None], dict[int, str]]:
    patterns: list[Pattern | None] = []
    refused: dict[int, str] = {}
    for number, line in enumerate(lines):
        try:
            patterns.append(parse(line))
        except ValueError as error:
            patterns.append(None)
            refused[number] = str(error)
    return patterns, refused


def _read_anew(lines: list[str]) -> bool:
    """Whether git before 2.52 reads a rule otherwise: which git is installed must not matter here."""
    return any(re.match(r"!?/?[^*?[\\]*[^*?[\\/]\*\*+(\\?/| *$)", line) and "/" in line for line in lines)


def _decide(matcher: Matcher, patterns: list[Pattern | None], path: str, is_dir: bool) -> int | None:
    """Git's own order: a denied directory decides for all beneath it."""
    parts = path.split("/")
    for depth in range(1, len(parts)):
        number = matcher.last_match("/".join(parts[:depth]), is_dir=True)
        if number is not None and not patterns[number].negative:
            return number
    return matcher.last_match(path, is_dir)


def test_every_answer_is_gits(oracle):
    cases, answers = oracle
    asked = matched = 0
    for case, expected in zip(cases, answers, strict=True):
        if _read_anew(case.lines):
            continue
        patterns, _ = _load(case.lines)
        matcher = Matcher(patterns)
        for (path, is_dir), number in zip(case.paths, expected, strict=True):
            ours = _decide(matcher, patterns, path, is_dir)
            assert ours == number, (case.lines, path, is_dir)
            asked += 1
            matched += number is not None
    assert asked >= 30_000
    assert matched > asked / 10, "patterns that never match prove nothing"


def test_a_rule_that_is_refused_never_matches_in_git(oracle):
    cases, answers = oracle
    seen: set[str] = set()
    for case, expected in zip(cases, answers, strict=True):
        _, refused = _load(case.lines)
        if _read_anew(case.lines):
            continue
        assert not refused.keys() & set(expected), (case.lines, refused)
        seen |= {re.sub(r"'.*?'|\[:.*", "", reason) for reason in refused.values()}
    assert len(seen) >= 6, seen


def test_deny_misses_nothing_and_every_extra_denial_has_a_named_rule(oracle):
    cases, answers = oracle
    extra = {"fold": 0, "unknown type": 0, "both readings of a**/b": 0}
    for case, expected in zip(cases, answers, strict=True):
        patterns, refused = _load(case.lines)
        if refused and _read_anew(case.lines):
            continue
        lines = [line for line, pattern in zip(case.lines, patterns, strict=True) if pattern]
        kept = [pattern for pattern in patterns if pattern]
        policy = Policy(Rules(deny=lines), presets=())
        for (path, is_dir), number in zip(case.paths, expected, strict=True):
            denied = number is not None and not patterns[number].negative
            verdict = policy.judge("read", path, is_dir)
            assert not (denied and verdict.allowed), ("missed", case.lines, path, is_dir)
            if not denied and not verdict.allowed and _read_anew(case.lines):
                extra["both readings of a**/b"] += 1
            elif not denied and not verdict.allowed:
                assert _differs_by_fold(kept[_index(verdict.why)], path, is_dir), (case.lines, path, verdict)
                extra["fold"] += 1
            unknown = policy.judge("read", path, None)
            assert verdict.allowed >= unknown.allowed, ("looser", case.lines, path)
            if verdict.allowed and not unknown.allowed:
                directory_rules = [pattern for pattern in kept if pattern.dir_only]
                assert directory_rules, (case.lines, path, unknown)
                extra["unknown type"] += 1
    assert all(extra.values()), extra


def _index(why: str) -> int:
    return int(re.fullmatch(r"read\.deny\[(\d+)\]", why)[1])


def _differs_by_fold(pattern: Pattern, path: str, is_dir: bool) -> bool:
    """Whether the folded pattern matches the folded name or a directory above it, the exact one neither."""
    parts = path.split("/")
    for depth in range(1, len(parts) + 1):
        name, folder = "/".join(parts[:depth]), depth < len(parts) or is_dir
        wide = Matcher([pattern.folded()]).last_match(fold(name), folder)
        if wide is not None and Matcher([pattern]).last_match(name, folder) is None:
            return True
    return False


def test_every_class_has_gits_bytes(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("git is not installed, so there is nothing to compare with")
    names = [
        "alnum",
        "alpha",
        "blank",
        "cntrl",
        "digit",
        "graph",
        "lower",
        "print",
        "punct",
        "space",
        "upper",
        "xdigit",
    ]
    lines = (
        [f"x[[:{name}:]]" for name in names] + [f"x[![:{name}:]]" for name in names] + ["x?", "x[é-\udcff]"]
    )
    singles = [bytes([byte]) for byte in range(1, 256) if byte != ord("/")]
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", "init", "-q", "--template=", str(tmp_path)], env=env, check=True)
    asked = []
    for number, line in enumerate(lines):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / ".gitignore").write_bytes(encode(line) + b"\n")
        asked += [b"%d/x%b" % (number, byte) for byte in singles]
    done = subprocess.run(
        [*GIT, "-z", "--stdin"],
        cwd=tmp_path, env=env, input=b"\0".join(asked) + b"\0", capture_output=True, check=True,
    )  # fmt: skip
    ignored = set(done.stdout.split(b"\0"))
    for number, line in enumerate(lines):
        matcher = Matcher([parse(line)])
        for byte in singles:
            ours = matcher.last_match(decode(b"x" + byte), is_dir=False) is not None
            assert ours == (b"%d/x%b" % (number, byte) in ignored), (line, byte)


# ── single patterns ────────────────────────────────────────────────────────────────────────────

MATCHES = [
    # pattern, name, is_dir, matches
    ("x/**", "x", True, False),
    ("x/**", "x/a", False, True),
    ("x/**", "x/a/b", False, True),
    ("**/x", "x", False, True),
    ("**/x", "a/b/x", False, True),
    ("a/**/b", "a/b", False, True),
    ("a/**\\/b", "a/b", False, False),
    ("a/**\\/b", "a/x/b", False, True),
    ("a/**\\/**/b", "a/x/b", False, True),
    ("a/**/**/b", "a/b", False, True),
    ("a/**/c/**/e", "a/b/c/d/e", False, True),
    ("a/**/c/**/e", "a/b/d/e", False, False),
    ("a**b", "a/b", False, False),
    ("a?b", "aéb", False, False),
    ("a??b", "aéb", False, True),
    ("/a", "a", False, True),
    ("/a", "b/a", False, False),
    ("a/b", "c/a/b", False, False),
    ("a/", "a", False, False),
    ("a/", "a", True, True),
    ("\\a\\*", "a*", False, True),
    ("\\!a", "!a", False, True),
    ("\\#a", "#a", False, True),
    ("a\\ ", "a ", False, True),
    ("a\\\t", "a\t", False, True),
    ("a  ", "a", False, True),
    ("a\\\\ ", "a\\", False, True),
    (" a", " a", False, True),
    ("secret", "secret\n", False, False),
    ("*a*a*b", "aab", False, True),
    ("*a*ab", "ab", False, False),
    ("a*a", "a", False, False),
    ("*.tar.gz", "x.tar.gz", False, True),
    ("caf\udcc3*", "café", False, True),
    ("*\udca9", "café", False, True),
    ("*\udcff*", "a\udcffb", False, True),
    ("\udcff", "\udcff", False, True),
    ("\udcff/[a]", "\udcff/a", False, True),
    ("[a]/x/?", "a/x/b", False, True),
    ("*[a]", "ba", False, True),
    ("[a]*", "ab", False, True),
    ("x\r", "x", False, True),
    ("x\r\n", "x", False, True),
]


@pytest.mark.parametrize(("text", "name", "is_dir", "matches"), MATCHES)
def test_match(text, name, is_dir, matches):
    assert (Matcher([parse(text)]).last_match(name, is_dir) is not None) is matches


@pytest.mark.parametrize("text", ["", "   ", "#", "# x", "\n", "\r\n", " \n"])
def test_blank_lines_and_comments_are_no_pattern(text):
    assert parse(text) is None


UNUSABLE = [
    ("a[", "not closed"),
    ("[!", "not closed"),
    ("[\\", "not closed"),
    ("[\\]", "not closed"),
    ("[a-\\", "not closed"),
    ("[a-", "not closed"),
    ("[[:alpha:", "not closed"),
    ("x[[:foo:]]", "no class"),
    ("x[[::]]", "no class"),
    ("[/]", "matches no byte"),
    ("./x", "segment"),
    ("../x", "segment"),
    ("a/../b", "segment"),
    ("a/\\.\\.", "segment"),
    ("..", "segment"),
    ("a//b", "empty segment"),
    ("//a", "empty segment"),
    ("a//", "empty segment"),
    ("!", "names nothing"),
    ("/", "names nothing"),
    ("//", "names nothing"),
    ("!/", "names nothing"),
    ("a\\", "backslash"),
    ("a\\/", "backslash"),
    ("a\t", "tab"),
    ("a\\\\\t", "tab"),
    ("a\0b", "NUL"),
    ("a\nb", "line break"),
    ("\ud800", "surrogate"),
    ("a" * 4097, "4097 bytes"),
]


@pytest.mark.parametrize(("text", "reason"), UNUSABLE)
def test_a_pattern_that_cannot_work_says_why(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse(text)


def test_the_longest_pattern_works():
    assert Matcher([parse("a" * 4096)]).last_match("a" * 4096, is_dir=False) == 0


@given(
    st.text(st.characters(exclude_characters="\0/\n\r", codec="utf-8"), min_size=1).filter(
        lambda x: x not in {".", ".."}
    )
)
def test_an_escaped_name_matches_itself_and_nothing_wider(name):
    pattern = parse(escape(name))
    assert Matcher([pattern]).last_match(name, is_dir=False) == 0
    assert pattern.base.literal == encode(name)
    assert Matcher([parse("/" + escape(name))]).last_match(f"x/{name}", is_dir=False) is None


# ── many patterns at once ──────────────────────────────────────────────────────────────────────

LITERALS = st.sampled_from(
    ["a", "b", "ab", ".a", "a.b", "x.y.z", "é", "*", "**", "?", "[ab]", "[!a]", "a.", "~"]
)


@given(st.lists(st.lists(LITERALS, min_size=1, max_size=3), min_size=1, max_size=3), st.data())
@settings(max_examples=300)
def test_the_index_finds_what_each_pattern_finds_alone(pieces, data):
    texts = ["/".join("".join(data.draw(st.permutations(piece))) for piece in pieces) for _ in range(4)]
    patterns = []
    for text in texts:
        try:
            patterns.append(parse(text))
        except ValueError:
            patterns.append(None)
    together = Matcher(patterns)
    names = st.lists(
        st.sampled_from(["a", "b", "ab", ".a", "a.b", "x.y.z", "é", "*", "aab", "a.~"]),
        min_size=1,
        max_size=4,
    )
    path = "/".join(data.draw(names))
    alone = [
        n
        for n, pattern in enumerate(patterns)
        if Matcher([pattern]).last_match(path, is_dir=True) is not None
    ]
    folder, _, base = path.rpartition("/")
    assert sorted(together.level(folder).hits(base, is_dir=True)) == alone


# ── hang patterns ──────────────────────────────────────────────────────────────────────────────

HANGS = [
    ("*a" * 40 + "*b", "a" * 4000),
    ("*?" * 40 + "*b", "a" * 4000),
    ("*[ab]" * 40 + "*c", "ab" * 2000),
    ("*a*" * 30 + "b", "a" * 4000),
    ("a*" * 1000 + "b", "a" * 4000),
    ("**/a" * 30 + "/b", "a/" * 2000 + "c"),
    ("**/*a*a*a*b", "a" * 4000),
    ("**/" + "a/" * 1000 + "b", "a/" * 2000 + "c"),
    ("x/**/" + "*a/" * 500 + "b", "x/" + "a/" * 2000 + "c"),
    ("**/*a" * 30 + "/b", "a/" * 2000 + "c"),
    ("/**/*" * 30 + "/b", "a/" * 2000 + "c"),
    ("/**/?" * 30 + "/b", "a/" * 2000 + "c"),
]


@pytest.mark.parametrize(("text", "name"), HANGS, ids=[text[:12] for text, _ in HANGS])
def test_no_regular_expression_can_backtrack_into_a_star(text, name):
    """The structure forbids it: a star is possessive, or lazy inside an atomic group, or stands last."""
    pattern = parse(text)
    sources = [pattern.folder_source(), pattern.base.source()]
    for source in sources:
        bare = re.sub(rb"\(\?>\[\^/\]\*\?(?:[^()\\]|\\.)*\)|\[\^/\]\*\+|\\.", b"", source)
        assert b"*" not in bare.replace(b"(?:/)*", b"").replace(b"(?>(?:/)*?", b"").replace(b"(?:/)*?", b"")
    assert Matcher([pattern]).last_match(name, is_dir=False) is None


def _under_a_limit(script: str, *arguments: str) -> int:
    """Run a script that may use one second of processor time, whatever else the machine does."""
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 1)); {script}"
    return subprocess.run([sys.executable, "-c", limited, *arguments], check=False).returncode


def test_hang_patterns_take_few_steps():
    script = """
import json, sys
from fsjail._gitignore import parse
from fsjail._matcher import Matcher
for text, name in json.loads(sys.argv[1]):
    assert Matcher([parse(text)]).last_match(name, False) is None
    assert Matcher([parse(text)]).last_match(name + "x", True) is None
"""
    assert _under_a_limit(script, json.dumps(HANGS)) == 0


def test_the_limit_bites():
    """The same pattern without atomic groups does not come to an end."""
    script = 'import re; re.fullmatch("[^/]*a" * 20 + "[^/]*b", "a" * 4000)'
    assert _under_a_limit(script) < 0


# ── globs ──────────────────────────────────────────────────────────────────────────────────────

GLOBS = [
    ("*.py", "a.py", False, True),
    ("*.py", "x/a.py", False, False),
    ("**/*.py", "a.py", False, True),
    ("**/*.py", "x/y/a.py", False, True),
    ("src/**", "src/a/b", False, True),
    ("src/**", "src", True, False),
    ("**", "a/b", False, True),
    ("**/", "a/b", False, False),
    ("**/", "a/b", True, True),
    ("/a", "a", False, True),
    ("!a", "!a", False, True),
    ("#a", "#a", False, True),
    ("a ", "a ", False, True),
]


@pytest.mark.parametrize(("text", "name", "is_dir", "matches"), GLOBS)
def test_glob(text, name, is_dir, matches):
    assert compile_glob(text)(name, is_dir) is matches


@pytest.mark.parametrize("text", ["", "/", "../x", "a//b", "[", "\0"])
def test_a_glob_that_cannot_work_says_why(text):
    with pytest.raises(ValueError, match=r"it |segment|closed"):
        compile_glob(text)


BELOW = [
    ("*.py", "", True),
    ("*.py", "a", False),
    ("**/*.py", "a/b", True),
    ("src/*/x", "src", True),
    ("src/*/x", "src/a", True),
    ("src/*/x", "src/a/b", False),
    ("src/*/x", "lib", False),
    ("src/**/x/y", "src/a/b/x", True),
    ("src/**/x/y", "lib/x", False),
    ("a/**", "a/b/c", True),
    ("a/**", "b", False),
]


@pytest.mark.parametrize(("text", "folder", "below"), BELOW)
def test_a_glob_knows_where_it_cannot_match(text, folder, below):
    assert compile_glob(text).reaches_below(folder) is below


@given(st.lists(st.sampled_from(["a", "b", "*", "**", "[ab]", "a*"]), min_size=1, max_size=4),
       st.lists(st.sampled_from(["a", "b", "ab"]), min_size=2, max_size=5))  # fmt: skip
def test_what_matches_is_below_each_folder_above_it(pieces, parts):
    glob = compile_glob("/".join(pieces))
    if glob("/".join(parts), is_dir=True):
        assert all(glob.reaches_below("/".join(parts[:depth])) for depth in range(len(parts)))
