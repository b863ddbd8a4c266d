"""Listing, walking, glob and grep: what is shown, what is never opened, and what bounds a search."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from _attackers import watchdog
from fsjail import Hit, Jail, LimitExceeded, Limits, OutOfBounds, Policy, PolicyDenied, Rules

BLOCK = 4 << 20


@pytest.fixture(params=["openat2", "walk"])
def resolver(request, monkeypatch):
    monkeypatch.setenv("FSJAIL_RESOLVER", request.param)
    return request.param


@pytest.fixture
def root(base) -> Path:
    return base / "root"


@pytest.fixture
def make(root, tmp_path):
    made: list[Jail] = []

    def make_jail(policy: Policy | None = None, **options) -> Jail:
        made.append(Jail(root, policy, state=tmp_path / "state", **options))
        return made[-1]

    yield make_jail
    for each in made:
        each.close()


def fill(root: Path, *names: str, text: str = "needle\n") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def hits(jail: Jail, pattern: str, path: str = ".", **options) -> list[tuple[str, int, int, str]]:
    return [(hit.path, hit.line, hit.column, hit.text) for hit in jail.grep(pattern, path, **options)]


# ── what is shown ──────────────────────────────────────────────────────────────────────────────

DENY = Policy(read=Rules(deny=["private/", "*.sqlite", "!ok.sqlite"]))


@pytest.fixture
def scene(root):
    fill(root, "a.py", "src/b.py", "src/c.txt", "src/deep/d.py", "private/p.py", "src/private/q.py",
         "x.sqlite", "ok.sqlite", ".env", "src/.hidden")  # fmt: skip
    (root / "empty").mkdir()
    (root / "alias").symlink_to("src")
    (root / "to_private").symlink_to("private")
    (root / "to_file").symlink_to("private/p.py")
    (root / "good").symlink_to("a.py")
    (root / "out").symlink_to("../outside")
    (root / "abs").symlink_to("/etc/passwd")
    (root / "dangling").symlink_to("nothing")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "pipe")
    return root


def test_listdir_hides(scene, make, resolver):
    jail = make(DENY)
    assert [entry.name for entry in jail.listdir()] == [
        "a.py", "alias", "dangling", "empty", "good", "loop", "ok.sqlite", "pipe", "src",
    ]  # fmt: skip
    assert [entry.path for entry in jail.listdir("alias")] == [
        "src/.hidden",
        "src/b.py",
        "src/c.txt",
        "src/deep",
    ]
    for name in ("private", "to_private", "src/private"):
        with pytest.raises(PolicyDenied):
            jail.listdir(name)


def test_walk_is_that_of_os_without_what_is_denied(scene, make, resolver):
    jail = make(DENY)
    assert list(jail.walk()) == [
        (".", ["empty", "src"], ["a.py", "alias", "dangling", "good", "loop", "ok.sqlite", "pipe"]),
        ("empty", [], []),
        ("src", ["deep"], [".hidden", "b.py", "c.txt"]),
        ("src/deep", [], ["d.py"]),
    ]
    assert [folder for folder, _, _ in jail.walk("src")] == ["src", "src/deep"]
    assert [folder for folder, _, _ in jail.walk("alias")] == ["src", "src/deep"]
    with pytest.raises(NotADirectoryError):
        list(jail.walk("a.py"))
    with pytest.raises(FileNotFoundError) as caught:
        list(jail.walk("no"))
    assert caught.value.filename == "no"


def test_walk_can_be_steered(scene, make, resolver):
    seen = []
    for folder, folders, _ in make(DENY).walk():
        seen.append(folder)
        if "src" in folders:
            folders.remove("src")
    assert seen == [".", "empty"]


@pytest.mark.parametrize(
    "planted",
    ["../outside", "..", "src/../../outside", "private", "src/../private", "to_private", "out", "/etc"],
)
def test_walk_cannot_be_steered_to_where_it_may_not(planted, scene, base, make, resolver, monkeypatch):
    fill(base, "outside/dir/deep/x")
    jail = make(DENY)
    forbidden = {os.stat(path).st_ino for path in (base / "outside", base, scene / "private", "/etc")}
    opened: set[int] = set()
    real = os.scandir

    def scandir(fd):
        opened.add(os.fstat(fd).st_ino)
        return real(fd)

    monkeypatch.setattr(os, "scandir", scandir)
    try:
        for folder, folders, _ in jail.walk():
            if folder == ".":
                folders.append(planted)
    except (OSError, ValueError):
        pass
    assert not opened & forbidden, "a directory was opened that may not be listed"


def test_glob(scene, make, resolver):
    jail = make(DENY)
    assert jail.glob("*.py") == ["a.py"]
    assert jail.glob("**/*.py") == ["a.py", "src/b.py", "src/deep/d.py"]
    assert jail.glob("src/*") == ["src/.hidden", "src/b.py", "src/c.txt", "src/deep"]
    assert jail.glob("*.py", "src") == ["src/b.py"]
    assert jail.glob("**/*.py", "alias") == ["src/b.py", "src/deep/d.py"]
    assert jail.glob("**/deep/") == ["src/deep"]
    assert jail.glob("src/**/d.py") == ["src/deep/d.py"]
    assert jail.glob("private/*") == []
    assert jail.glob("**/*.sqlite") == ["ok.sqlite"]
    assert jail.glob("nothing*") == []
    assert "to_private" not in jail.glob("*")
    assert not any("private" in name or "out" in name for name in jail.glob("**/*"))
    with pytest.raises(NotADirectoryError):
        jail.glob("*", "a.py")


@pytest.mark.parametrize("pattern", ["../*", "/etc/*", "src/../../*", "**/../*"])
def test_a_pattern_that_leads_out_is_refused_and_logged(pattern, scene, make):
    jail = make(DENY)
    with pytest.raises(OutOfBounds):
        jail.glob(pattern)
    assert len(list(jail.audit.events(denied=True))) == 1


@pytest.mark.parametrize("pattern", ["", "a//b", "[", "x\\"])
def test_a_glob_that_cannot_match_is_an_error(pattern, scene, make):
    with pytest.raises(ValueError, match=r"."):
        make(DENY).glob(pattern)


def test_a_denied_directory_is_never_opened(scene, make, resolver, monkeypatch):
    fill(scene, "private/sub/x.py", "src/private/sub/y.py")
    jail = make(DENY)
    denied = {os.stat(scene / name).st_ino for name in ("private", "src/private")}
    opened: list[int] = []
    real = os.scandir

    def scandir(fd="."):
        opened.append(os.fstat(fd).st_ino)
        return real(fd)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "listdir", lambda *_a: pytest.fail("listdir"))
    jail.listdir()
    jail.listdir("src")
    list(jail.walk())
    jail.glob("**/*")
    list(jail.grep("needle"))
    assert opened
    assert not denied & set(opened)


def test_what_glob_cannot_match_is_not_entered(scene, make, resolver, monkeypatch):
    jail = make(DENY)
    opened: list[int] = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda fd: opened.append(os.fstat(fd).st_ino) or real(fd))
    assert jail.glob("empty/*.py") == []
    assert os.stat(scene / "src").st_ino not in opened


def test_an_allow_list_shows_the_way_only(root, make, resolver):
    fill(root, "docs/a/b/x.md", "docs/a/y.txt", "other/z.txt", "src/w.md", "top.md")
    (root / "nothing").mkdir()
    (root / "link").symlink_to("other/z.txt")
    jail = make(Policy(read=Rules(allow=["*.md"])))
    assert [entry.name for entry in jail.listdir()] == ["docs", "src", "top.md"]
    assert [entry.name for entry in jail.listdir("docs")] == ["a"]
    assert [entry.name for entry in jail.listdir("docs/a")] == ["b"]
    for nowhere in ("other", "missing"):  # what leads nowhere is refused like what is not there
        with pytest.raises(PolicyDenied):
            jail.listdir(nowhere)
    assert jail.glob("**/*") == ["docs/a/b/x.md", "src/w.md", "top.md"]
    assert [path for path, *_ in hits(jail, "needle")] == ["top.md", "docs/a/b/x.md", "src/w.md"]
    assert [folder for folder, _, _ in jail.walk()] == [".", "docs", "docs/a", "docs/a/b", "src"]
    with pytest.raises(PolicyDenied):
        jail.read_text("docs/a/y.txt")
    allowed = make(Policy(read=Rules(allow=["/docs/a/b/"])))
    assert [entry.name for entry in allowed.listdir()] == ["docs"]
    assert allowed.glob("**/*") == ["docs/a/b", "docs/a/b/x.md"]


def test_ways_that_lead_nowhere_are_not_shown(root, make, resolver, monkeypatch):
    fill(root, "a/b/x.txt", "c/no.txt", "d/y.md")
    (root / "c/deny").mkdir()
    jail = make(Policy(read=Rules(allow=["*.md"], deny=["deny/"])))
    assert [entry.name for entry in jail.listdir()] == ["d"]
    real = jail._root.open_directory

    def closed(name):
        if name in {"d", "a"}:
            raise PermissionError(errno.EACCES, "no")
        return real(name)

    monkeypatch.setattr(jail._root, "open_directory", closed)
    assert jail.listdir() == []


def test_a_text_with_a_line_end_is_on_no_line(root, make):
    fill(root, "f", text="a\nb\n")
    assert hits(make(), "a\nb", literal=True) == []


def test_another_name_for_the_trash_is_hidden(root, make, resolver):
    jail = make(Policy(write=Rules(allow=["*"])))
    fill(root, "f")
    jail.delete("f")
    (root / "sneaky").symlink_to(".fsjail")
    assert jail.listdir() == []
    for call in (jail.listdir, lambda name: list(jail.walk(name)), lambda name: list(jail.grep("n", name))):
        with pytest.raises(PolicyDenied):
            call("sneaky")


# ── what changes meanwhile ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("instead", ["gone", "link", "file", "closed"])
def test_a_directory_that_is_swapped_is_left_out(instead, scene, base, make, resolver, monkeypatch):
    fill(base, "outside/dir/secret.py", text="needle SECRET\n")
    jail = make(DENY)
    seen = []
    for folder, _, _ in jail.walk():
        seen.append(folder)
        if folder == ".":
            (scene / "src").rename(base / "moved")
            if instead == "link":
                (scene / "src").symlink_to("../outside")
            elif instead == "file":
                (scene / "src").write_text("x")
            elif instead == "closed":
                (scene / "src").mkdir()
                real = jail._root.open_directory

                def closed(name, real=real):
                    if name == "src":
                        raise PermissionError(errno.EACCES, "no")
                    return real(name)

                monkeypatch.setattr(jail._root, "open_directory", closed)
    assert "src/deep" not in seen
    assert not any("secret" in folder for folder in seen)


def test_an_error_that_is_no_answer_goes_on(scene, make, monkeypatch):
    jail = make(DENY)

    def broken(_name):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(jail._root, "open_directory", broken)
    with pytest.raises(OSError, match="broken"):
        list(jail.walk())
    monkeypatch.undo()
    real = os.open

    def fail(path, *args, **kwargs):
        if path == "b.py":
            raise OSError(errno.EIO, "broken")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OSError, match="broken"):
        list(jail.grep("needle"))


def test_a_file_that_vanishes_or_closes_is_left_out(scene, make, monkeypatch):
    jail = make(DENY)
    real = os.open

    def fail(path, *args, **kwargs):
        if path == "b.py":
            raise PermissionError(errno.EACCES, "no")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", fail)
    assert [path for path, *_ in hits(jail, "needle", glob="*.py")] == ["a.py", "src/deep/d.py"]


def test_an_entry_that_vanishes_while_it_is_listed(scene, make, monkeypatch):
    jail = make(DENY)
    real = jail.policy.judge

    class Vanishing:
        def __getattr__(self, name):
            return getattr(policy, name)

        def judge(self, access, name, is_dir):
            if name == "a.py":
                (scene / "a.py").unlink(missing_ok=True)
            return real(access, name, is_dir)

    policy = jail.policy
    monkeypatch.setattr(jail._judge, "policy", Vanishing())
    assert "a.py" not in [entry.name for entry in jail.listdir()]


# ── grep ───────────────────────────────────────────────────────────────────────────────────────


def test_grep_hits(root, make):
    fill(root, "d/f.txt", text="one\n  two two\r\nthree\n\nlast two")
    jail = make()
    found = list(jail.grep("two"))
    assert found == [Hit("d/f.txt", 2, 3, "  two two"), Hit("d/f.txt", 5, 6, "last two")]
    assert hits(jail, "TWO", ignore_case=True) == hits(jail, "two")
    assert hits(jail, "TWO") == []
    assert hits(jail, "TWO", ignore_case=True, literal=True) == hits(jail, "two")
    assert hits(jail, "t.o") == hits(jail, "two")
    assert hits(jail, "t.o", literal=True) == []
    assert hits(jail, "two", "d/f.txt") == hits(jail, "two")
    assert hits(jail, "two", max_hits=1) == hits(jail, "two")[:1]
    assert hits(jail, "two", max_hits=0) == []


@pytest.mark.parametrize(
    ("pattern", "lines"),
    [
        ("^t", [2, 3]),
        ("e$", [1, 3]),
        ("^$", [4]),
        (r"\Atwo", [2]),
        (r"ee\z", [3]),
        (r"\A\z", [4]),
        (r"e\st", []),
        (r"one[^x]*three", []),
        (r"[^x]*wo", [2]),
        (r"\n", []),
        ("(?i)THREE", [3]),
        ("(?s)one.two", []),
        (r"\bone\b", [1]),
        ("one|three", [1, 3]),
        ("", [1, 2, 3, 4, 5]),
    ],
)
def test_grep_is_about_lines(pattern, lines, root, make):
    fill(root, "f", text="one\ntwo\nthree\n\nlast\n")
    assert [line for _, line, _, _ in hits(make(), pattern)] == lines


def test_grep_of_lines_with_carriage_returns(root, make):
    (root / "f").write_bytes(b"foo\r\nbar\r\n")
    assert hits(make(), "o") == [("f", 1, 2, "foo")]
    assert hits(make(), "foo$") == [("f", 1, 1, "foo")], "the text that a hit shows ends there"


def test_columns_count_characters(root, make):
    fill(root, "f", text="ééx\n")
    (root / "g").write_bytes(b"\xff\xfex\n")
    assert hits(make(), "x") == [("f", 1, 3, "ééx"), ("g", 1, 3, "\ufffd\ufffdx")]
    assert hits(make(), "é") == [("f", 1, 1, "ééx")]


def test_invalid_bytes_in_pattern_and_file(root, make):
    (root / "g").write_bytes(b"a\xffb\n")
    assert hits(make(), "\udcff", literal=True) == [("g", 1, 2, "a\ufffdb")]
    assert hits(make(), "b") == [("g", 1, 3, "a\ufffdb")]


def test_binary_files_are_left_out(root, make):
    (root / "bin").write_bytes(b"needle\0\n")
    (root / "late").write_bytes(b"needle\n" * 2000 + b"\0")
    assert {path for path, *_ in hits(make(), "needle")} == {"late"}


def test_links_and_special_files_are_left_out(scene, make):
    paths = [path for path, *_ in hits(make(DENY), "needle")]
    assert paths == ["a.py", "ok.sqlite", "src/.hidden", "src/b.py", "src/c.txt", "src/deep/d.py"]
    assert hits(make(DENY), "needle", "good") == [("a.py", 1, 1, "needle")]


def test_long_lines_are_cut_around_the_match(root, make):
    fill(root, "f", text="x" * 5000 + "needle" + "y" * 5000 + "\n" + "needle" + "x" * 5000 + "\n")
    far, near = hits(make(), "needle")
    assert far[1:3] == (1, 5001)
    assert near[1:3] == (2, 1)
    for text in (far[3], near[3]):
        assert "needle" in text
        assert len(text) <= 2002
        assert text.endswith("…")
    assert far[3].startswith("…")


def test_files_of_many_blocks(root, make):
    line = b"0123456789abcdef" * 64 + b"\n"
    count = 3 * BLOCK // len(line)
    (root / "big").write_bytes(line * count + b"needle\n" + line * 10 + b"the needle")
    assert [(number, column) for _, number, column, _ in hits(make(), "needle")] == [
        (count + 1, 1),
        (count + 12, 5),
    ]


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 200_000])
def test_files_about_as_long_as_the_first_read(size, root, make):
    """What is read at first may end in the middle of a line, or of the text that is looked for."""
    for name, behind in (("end", 0), ("over", 3)):
        (root / name).write_bytes(b"x" * 63 + b"\n" + b"y" * (size - 70 + behind) + b"needle")
    (root / "none").write_bytes(b"z" * size)
    for options in ({"literal": True}, {}, {"ignore_case": True}):
        found = hits(make(), "needle", **options)
        assert [(path, line, column) for path, line, column, _ in found] == [
            ("end", 2, size - 69),
            ("over", 2, size - 66),
        ]


def test_a_file_that_becomes_a_fifo_shows_nothing(scene, make, monkeypatch):
    """An attacker puts a FIFO that holds a text in a file's place, between the listing and the opening."""
    path, real = scene / "src/b.py", os.open
    armed: list[bool] = []
    held: list[int] = []

    def arm():
        path.unlink()
        path.write_text("a file\n")
        armed.append(True)

    def swap(name, *args, **kwargs):
        if name == "b.py" and armed:
            armed.clear()
            path.unlink()
            os.mkfifo(path)
            held.append(real(path, os.O_RDWR | os.O_NONBLOCK))
            os.write(held[-1], b"needle PLANTED\n")
        return real(name, *args, **kwargs)

    jail = make(DENY)
    monkeypatch.setattr(os, "open", swap)
    try:
        with watchdog(20):
            arm()
            held.append(real(scene / "src", os.O_RDONLY))
            held.append(os.open("b.py", os.O_RDONLY, dir_fd=held[0]))
            assert b"PLANTED" in os.read(held[-1], 100), "the attack works on plain Python"
            for pattern in ("needle", "nowhere"):
                arm()
                found = hits(jail, pattern)
                assert not armed, "the file was swapped"
                assert "src/b.py" not in {name for name, *_ in found}
                assert bool(found) == (pattern == "needle"), "the search went on"
    finally:
        for fd in held:
            os.close(fd)


def test_a_fifo_is_not_even_opened(scene, make, monkeypatch):
    opened: list[str] = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *a, **k: opened.append(str(path)) or real(path, *a, **k))
    hits(make(DENY), "needle")
    assert "a.py" in opened
    assert "pipe" not in opened


def test_a_line_longer_than_a_block(root, make):
    with (root / "big").open("wb") as stream:
        stream.write(b"start ")
        for _ in range(11):
            stream.write(b"x" * (1 << 20))
        stream.write(b"needle\nsecond needle\n")
    found = hits(make(limits=Limits(max_seconds=60)), "needle")
    assert [number for _, number, _, _ in found] == [1, 2]
    assert [number for _, number, _, _ in hits(make(), "^start")] == [1]


def test_blocks_that_the_system_cuts_short(root, make, monkeypatch):
    fill(root, "f", text="alpha needle\nbeta needle\ngamma\nneedle")
    real = os.read
    monkeypatch.setattr(os, "read", lambda fd, size: real(fd, min(size, 7)))
    assert [(line, column) for _, line, column, _ in hits(make(), "needle")] == [(1, 7), (2, 6), (4, 1)]


@pytest.mark.parametrize("glob", ["*.py", "src/", "/src", "**/deep/*", "src/**/*.py", "d.py", "deep"])
def test_grep_filter(glob, scene, make):
    wanted = {
        "*.py": ["a.py", "src/b.py", "src/deep/d.py"],
        "src/": ["src/.hidden", "src/b.py", "src/c.txt", "src/deep/d.py"],
        "/src": ["src/.hidden", "src/b.py", "src/c.txt", "src/deep/d.py"],
        "**/deep/*": ["src/deep/d.py"],
        "src/**/*.py": ["src/b.py", "src/deep/d.py"],
        "d.py": ["src/deep/d.py"],
        "deep": ["src/deep/d.py"],
    }
    assert [path for path, *_ in hits(make(DENY), "needle", glob=glob)] == wanted[glob]


@pytest.mark.parametrize("glob", ["", "!x", "# no", "[", "a//b"])
def test_a_filter_that_selects_nothing_is_an_error(glob, scene, make):
    with pytest.raises(ValueError, match=r"."):
        make(DENY).grep("x", glob=glob)


@pytest.mark.parametrize("pattern", ["(", "(?=x)", r"(a)\1", "x" * 5000, "a{2000}", "[z-a]", "\\"])
def test_an_expression_that_cannot_be(pattern, scene, make):
    with pytest.raises(ValueError, match=r"pattern|expression"):
        make(DENY).grep(pattern)


# ── nothing hangs ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(.*)*x", "(a*)*b", "(.+)+(.+)+z"])
def test_an_expression_cannot_hang(pattern, root, make):
    fill(root, "f", text="a" * 50_000 + "!\n")
    with watchdog(10):
        hits(make(), pattern)


@pytest.mark.parametrize("pattern", ["^[^x]*b", r"a[\s\S]*b", r"a\s[^x]*b", "(?s)a.*b"])
def test_a_match_over_many_lines_does_not_cost_their_square(pattern, root, make):
    fill(root, "f", text="aaaaaaa\n" * 60_000 + "b\n")
    started = time.monotonic()
    with watchdog(20):
        hits(make(), pattern)
    assert time.monotonic() - started < 5


def test_the_time_limit_holds_inside_a_file(root, make):
    fill(root, "f", text="aaaaaaa\n" * 60_000 + "b\n")
    jail = make(limits=Limits(max_seconds=0.3))
    started = time.monotonic()
    with watchdog(20):
        try:
            hits(jail, "^[^x]*b")
        except LimitExceeded as error:
            assert error.errno == errno.ETIMEDOUT  # noqa: PT017 - being fast enough is right too
    assert time.monotonic() - started < 3


# ── limits ─────────────────────────────────────────────────────────────────────────────────────


def test_max_results(root, make):
    fill(root, *(f"f{number}" for number in range(10)))
    jail = make(limits=Limits(max_results=9))
    for call in (lambda: list(jail.grep("needle")), lambda: jail.glob("*"), jail.listdir):
        with pytest.raises(LimitExceeded) as caught:
            call()
        assert caught.value.errno == errno.EDQUOT
    assert len(list(jail.grep("needle", max_hits=9))) == 9
    fine = make(limits=Limits(max_results=10))
    assert len(list(fine.grep("needle"))) == len(fine.glob("*")) == len(fine.listdir()) == 10


def test_max_seconds(root, make, monkeypatch):
    fill(root, "a/b/f", "a/c/f", "d/f")
    jail = make(Policy(read=Rules(allow=["*.md"])), limits=Limits(max_seconds=5))
    now = [0.0]

    def monotonic():
        now[0] += 3
        return now[0]

    monkeypatch.setattr("fsjail._search.time.monotonic", monotonic)
    for call in (
        lambda: list(jail.walk()),
        lambda: jail.glob("**/*"),
        lambda: list(jail.grep("n")),
        jail.listdir,
    ):
        now[0] = 0
        with pytest.raises(LimitExceeded) as caught:
            call()
        assert caught.value.errno == errno.ETIMEDOUT


def test_no_time_limit(root, make):
    fill(root, "a/f")
    assert make(limits=Limits(max_seconds=None)).glob("**/*") == ["a", "a/f"]


def test_a_search_can_be_left_in_the_middle(root, make):
    fill(root, *(f"d{number}/f" for number in range(5)))
    jail = make()
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    search = jail.grep("needle")
    next(search)
    search.close()
    walk = jail.walk()
    next(walk)
    walk.close()
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after == before
