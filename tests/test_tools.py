"""The tools that a model calls: their shape, what they answer, and what no answer may hold."""

from __future__ import annotations

import inspect
import os
import re
import typing

import pytest

from fsjail import Jail, Limits, Policy, Rules
from fsjail import tools as tools_module
from fsjail.tools import file_tools

NAMES = [
    "read_file",
    "list_directory",
    "file_search",
    "grep",
    "write_file",
    "edit_file",
    "move_file",
    "copy_file",
    "create_directory",
    "file_delete",
    "restore_file",
]
SIGNATURES = {
    "read_file": "(file_path: str, start_line: int = 1, line_count: int | None = None) -> str",
    "list_directory": "(dir_path: str = '.') -> str",
    "file_search": "(pattern: str, dir_path: str = '.') -> str",
    "grep": "(pattern: str, dir_path: str = '.', file_pattern: str | None = None,"
    " ignore_case: bool = False) -> str",
    "write_file": "(file_path: str, text: str, append: bool = False) -> str",
    "edit_file": "(file_path: str, old_text: str, new_text: str, count: int = 1) -> str",
    "move_file": "(source_path: str, destination_path: str) -> str",
    "copy_file": "(source_path: str, destination_path: str) -> str",
    "create_directory": "(dir_path: str) -> str",
    "file_delete": "(file_path: str) -> str",
    "restore_file": "(trash_id: str = '', to: str | None = None) -> str",
}


class Tools:
    """The tools of one jail as attributes."""

    def __init__(self, jail):
        self.jail = jail
        self.all = {tool.__name__: tool for tool in file_tools(jail)}

    def __getattr__(self, name):
        return self.all[name]


@pytest.fixture
def root(base):
    return base / "root"


@pytest.fixture
def jail(base, root):
    policy = Policy(read=Rules(deny=["private/"]), write=Rules(allow=["*"], deny=["*.lock"]))
    with Jail(root, policy, state=str(base / "state")) as jail:
        yield jail


@pytest.fixture
def tools(jail):
    return Tools(jail)


def trash_id(answer: str) -> str:
    found = re.search(r'restore_file\("([^"]+)"\)', answer)
    assert found, answer
    return found.group(1)


# --- the shape ----------------------------------------------------------------------------------


def test_names_and_signatures(jail):
    made = file_tools(jail)
    assert [tool.__name__ for tool in made] == NAMES
    assert {tool.__name__: str(inspect.signature(tool)) for tool in made} == SIGNATURES
    assert all(inspect.isfunction(tool) for tool in made)


@pytest.mark.parametrize("name", NAMES)
def test_annotations_are_real_types(jail, name):
    (tool,) = file_tools(jail, include=[name])
    assert typing.get_type_hints(tool) == tool.__annotations__
    assert tool.__annotations__["return"] is str
    assert not any(isinstance(kind, str) for kind in tool.__annotations__.values())


@pytest.mark.parametrize("name", NAMES)
def test_docstring_tells_every_argument(jail, name):
    (tool,) = file_tools(jail, include=[name])
    told = inspect.getdoc(tool) or ""
    for argument in inspect.signature(tool).parameters:
        assert re.search(rf"^    {argument}: \w", told, re.MULTILINE), argument


def test_include_keeps_the_fixed_order(jail):
    assert [tool.__name__ for tool in file_tools(jail, include=["grep", "read_file"])] == [
        "read_file",
        "grep",
    ]
    assert [tool.__name__ for tool in file_tools(jail, include="grep")] == ["grep"]
    assert file_tools(jail, include=[]) == []


def test_include_with_an_unknown_name_lists_the_known_ones(jail):
    with pytest.raises(ValueError, match=r"unknown tool: rm; known: read_file, .*restore_file"):
        file_tools(jail, include=["rm", "grep"])


@pytest.mark.parametrize("name", NAMES)
def test_langchain_takes_each_tool(jail, name):
    langchain = pytest.importorskip("langchain_core.tools")
    (tool,) = file_tools(jail, include=[name])
    arguments = set(inspect.signature(tool).parameters)
    parsed = langchain.StructuredTool.from_function(
        tool, parse_docstring=True, error_on_invalid_docstring=True
    )
    for made in (parsed, langchain.StructuredTool.from_function(tool), langchain.tool(tool)):
        assert made.name == name
        assert made.description
        schema = made.get_input_schema().model_json_schema()
        assert set(schema["properties"]) == arguments
    described = parsed.get_input_schema().model_json_schema()["properties"]
    assert all(field["description"] for field in described.values())


def test_langchain_calls_through(jail, root):
    langchain = pytest.importorskip("langchain_core.tools")
    (root / "a.txt").write_text("one\n")
    (read_file,) = file_tools(jail, include=["read_file"])
    made = langchain.tool(read_file)
    call = {"type": "tool_call", "id": "1", "name": "read_file"}
    assert made.invoke({**call, "args": {"file_path": "a.txt"}}).content == "one\n"
    assert made.invoke({**call, "args": {"file_path": ".env"}}).content.startswith("Refused:")


# --- reading ------------------------------------------------------------------------------------


def test_read_whole_file_is_the_text_alone(tools, root):
    (root / "a.txt").write_text("one\ntwo\nthree")
    assert tools.read_file("a.txt") == "one\ntwo\nthree"


@pytest.mark.parametrize(
    ("start", "count", "expected"),
    [
        (1, 2, "1\n2\n[lines 1-2 of 5; go on with start_line=3]"),
        (3, 1, "3\n[lines 3-3 of 5; go on with start_line=4]"),
        (4, None, "4\n5\n[lines 4-5 of 5]"),
        (5, 9, "5\n[lines 5-5 of 5]"),
        (1, 5, "1\n2\n3\n4\n5\n"),
        (6, None, "[there is no line 6: the file has 5 lines]"),
    ],
)
def test_read_range(tools, root, start, count, expected):
    (root / "a.txt").write_text("1\n2\n3\n4\n5\n")
    assert tools.read_file("a.txt", start, count) == expected


@pytest.mark.parametrize(("start", "count"), [(0, None), (-1, None), (1, 0), (1, -3)])
def test_read_range_counts_from_one(tools, root, start, count):
    (root / "a.txt").write_text("1\n")
    assert tools.read_file("a.txt", start, count).startswith("Failed: ")


def test_read_range_of_a_last_line_without_its_end(tools, root):
    (root / "a.txt").write_text("1\n2")
    assert tools.read_file("a.txt", 2) == "2\n[lines 2-2 of 2]"


def test_read_empty_file_says_so(tools, root):
    (root / "a.txt").write_text("")
    assert tools.read_file("a.txt") == "[the file is empty]"


def test_read_of_a_huge_file_is_cut_and_can_be_continued(tools, root):
    lines = [f"line {number:06}\n" for number in range(1, 50_001)]
    (root / "a.txt").write_text("".join(lines))
    got, start = "", 1
    for _ in range(100):
        answer = tools.read_file("a.txt", start)
        assert len(answer) < tools_module.MAX_CHARACTERS + 200
        text, _, note = answer.rpartition("[lines ")
        assert " of 50000" in note
        more = re.search(r"go on with start_line=(\d+)\]$", note)
        if not more:
            got += text
            break
        start = int(more.group(1))
        # A line that was cut comes again, whole, with the next call.
        kept = start - 1 - got.count("\n")
        got += "".join(text.splitlines(keepends=True)[:kept])
    assert got == "".join(lines)


def test_read_of_one_endless_line_is_cut(tools, root):
    (root / "a.js").write_text("x" * 300_000 + "\nnext\n")
    answer = tools.read_file("a.js")
    assert len(answer) < tools_module.MAX_CHARACTERS + 200
    assert (
        "[line 1 of 2 is too long and cut after 40000 characters; grep finds text in it, start_line=2"
        in answer
    )
    assert tools.read_file("a.js", 2) == "next\n[lines 2-2 of 2]"


def test_read_does_not_count_a_huge_file_to_its_end(tools, root, monkeypatch):
    monkeypatch.setattr(tools_module, "_COUNTED", 200_000)
    (root / "a.txt").write_text("0123456789\n" * 100_000)
    answer = tools.read_file("a.txt", 1, 10)
    assert re.search(r"\[lines 1-10 of more than \d+; go on with start_line=11\]$", answer)


def test_read_of_a_binary_file_fails_in_words(tools, root):
    (root / "a.bin").write_bytes(b"ok\n\xff\xfe\x00")
    assert tools.read_file("a.bin") == "Failed: this is not a UTF-8 text file."


def test_a_limit_is_answered(base, root):
    with (root / "big").open("wb") as file:
        file.truncate(2**20)
    with Jail(root, limits=Limits(max_read_bytes=1000), state=str(base / "state")) as jail:
        assert Tools(jail).read_file("big").startswith("Limit: ")


def test_lines_of_a_file_over_the_limit_can_still_be_read(base, root):
    lines = [f"line {number}\n" for number in range(1, 2001)]
    (root / "big").write_text("".join(lines))
    with Jail(root, limits=Limits(max_read_bytes=10_000), state=str(base / "state")) as jail:
        tools = Tools(jail)
        answer = tools.read_file("big", 1500, 2)
        assert answer.startswith("line 1500\nline 1501\n[lines 1500-1501 of a file too large to count;")
        assert tools.read_file("big").startswith("line 1\nline 2\n")
        assert "go on with start_line=501" in tools.read_file("big")
        assert tools.read_file("big", 5000) == "[there is no line 5000]"


def test_text_that_cannot_be_written_is_answered(tools, root):
    assert tools.write_file("a.txt", "half \ud800").startswith("Failed: ")
    assert not (root / "a.txt").exists()


def test_list_directory(tools, root):
    (root / "b").mkdir()
    (root / "a.txt").write_text("123")
    (root / "private").mkdir()
    (root / ".env").write_text("SECRET")
    (root / "link").symlink_to("a.txt")
    (root / "out").symlink_to("../outside/secret")
    assert tools.list_directory() == "a.txt (3 bytes)\nb/\nlink (link)"
    assert tools.list_directory("b") == "[the directory is empty, or nothing in it may be read]"


def test_list_directory_is_cut(tools, root, monkeypatch):
    monkeypatch.setattr(tools_module, "MAX_ENTRIES", 3)
    for number in range(5):
        (root / f"{number}").write_text("")
    lines = tools.list_directory().splitlines()
    assert len(lines) == 4
    assert lines[-1].startswith("[more than 3 entries")


def test_a_name_with_a_newline_forges_no_line(tools, root):
    (root / "a\nforged.txt").write_text("hit")
    assert tools.list_directory() == '"a\\nforged.txt" (3 bytes)'
    assert tools.file_search("*.txt") == '"a\\nforged.txt"'
    assert tools.grep("hit") == '"a\\nforged.txt":1: hit'
    assert "\n" not in tools.write_file("b\nc.txt", "x")
    assert "\n" not in tools.read_file("no\nsuch.txt")


def test_every_answer_can_be_encoded(tools, root):
    with open(os.fsencode(root) + b"/a\xff.txt", "wb") as file:
        file.write(b"hit")
    for answer in (
        tools.list_directory(),
        tools.file_search("*.txt"),
        tools.grep("hit"),
        tools.read_file("no\udcff"),
        tools.file_delete("a\udcff.txt"),
    ):
        assert answer.encode("utf-8")
    assert tools.restore_file().encode("utf-8")


def test_file_search(tools, root):
    (root / "src" / "deep").mkdir(parents=True)
    (root / "private").mkdir()
    for name in ("top.py", "src/a.py", "src/deep/b.py", "src/deep/b.txt", "private/c.py"):
        (root / name).write_text("")
    assert tools.file_search("*.py") == "src/a.py\nsrc/deep/b.py\ntop.py"
    assert tools.file_search("*.py", "src/deep") == "src/deep/b.py"
    assert tools.file_search("src/*.py") == "src/a.py"
    assert tools.file_search("deep/*.py", "src") == "src/deep/b.py"
    assert tools.file_search("**/*.txt") == "src/deep/b.txt"
    assert tools.file_search("*.rs") == "[nothing matches]"


@pytest.mark.parametrize("pattern", ["[", "../x", "a//b", "", "\\"])
def test_file_search_with_a_pattern_that_cannot_work(tools, pattern):
    assert tools.file_search(pattern).startswith(("Failed: ", "Refused: "))


def test_grep(tools, root):
    (root / "src").mkdir()
    (root / "private").mkdir()
    (root / "src" / "a.py").write_text("import os\nTODO one\n")
    (root / "b.txt").write_text("todo two\n")
    (root / "private" / "c.txt").write_text("TODO three\n")
    assert tools.grep("TODO") == "src/a.py:2: TODO one"
    assert tools.grep("todo", ignore_case=True) == "b.txt:1: todo two\nsrc/a.py:2: TODO one"
    assert tools.grep("todo", file_pattern="*.py", ignore_case=True) == "src/a.py:2: TODO one"
    assert tools.grep("todo", file_pattern="src/*.py", ignore_case=True) == "src/a.py:2: TODO one"
    assert tools.grep("T.DO", "src") == "src/a.py:2: TODO one"
    assert tools.grep("TODO", "src/a.py") == "src/a.py:2: TODO one"
    assert tools.grep("absent") == "[no hits]"


@pytest.mark.parametrize("pattern", ["(", "[a", "*", r"(a)\1", "(?<=a)b"])
def test_grep_with_an_expression_that_cannot_work(tools, root, pattern):
    (root / "a.txt").write_text("a(b\n")
    assert tools.grep(pattern).startswith("Failed: ")


def test_grep_is_cut(tools, root):
    (root / "a.txt").write_text("hit\n" * 5_000)
    lines = tools.grep("hit").splitlines()
    assert len(lines) == tools_module.MAX_HITS + 1
    assert lines[-1].startswith("[more than 200 hits")


def test_grep_shows_what_stands_around_a_hit_in_a_long_line(tools, root):
    (root / "a.js").write_text("x" * 400 + "needle" + "y" * 400 + "\n")
    answer = tools.grep("needle")
    assert "needle" in answer
    assert len(answer) < tools_module.MAX_HIT_CHARACTERS + 40


def test_grep_tells_the_place_of_a_hit_far_into_an_endless_line(tools, root):
    (root / "a.js").write_text("x" * 100_000 + "needle" + "y" * 100_000 + "\n")
    answer = tools.grep("needle")
    assert "needle" in answer or "column 100001" in answer
    assert len(answer) < tools_module.MAX_HIT_CHARACTERS + 40


def test_grep_that_reaches_a_limit_shows_what_it_found(base, root):
    (root / "a.txt").write_text("hit\n" * 10)
    with Jail(root, limits=Limits(max_results=3), state=str(base / "state")) as jail:
        lines = Tools(jail).grep("hit").splitlines()
    assert lines[:3] == ["a.txt:1: hit", "a.txt:2: hit", "a.txt:3: hit"]
    assert lines[3].startswith("[not complete: ")


# --- changing -----------------------------------------------------------------------------------


def test_write_makes_parents_and_keeps_the_old_version(tools, root):
    assert tools.write_file("new/deep/a.txt", "one\n") == "Wrote 4 characters to new/deep/a.txt."
    answer = tools.write_file("new/deep/a.txt", "two\n")
    assert (root / "new/deep/a.txt").read_text() == "two\n"
    assert tools.restore_file(trash_id(answer)) == "Restored new/deep/a.txt."
    assert (root / "new/deep/a.txt").read_text() == "one\n"
    # What was there before the restore is kept in its turn.
    answer = tools.restore_file()
    assert answer.count("new/deep/a.txt") == 1
    (again,) = re.findall(r"^(\S+)  new/deep/a.txt", answer, re.MULTILINE)
    tools.restore_file(again)
    assert (root / "new/deep/a.txt").read_text() == "two\n"


def test_write_appends(tools, root):
    tools.write_file("log/a.txt", "one\n", append=True)
    assert tools.write_file("log/a.txt", "two\n", append=True).startswith("Added 4 characters to log/a.txt.")
    assert (root / "log/a.txt").read_text() == "one\ntwo\n"


def test_edit_answers_with_the_difference(tools, root):
    (root / "a.py").write_text("a = 1\nb = 2\n")
    answer = tools.edit_file("a.py", "b = 2", "b = 3")
    assert answer.startswith("Edited a.py.")
    assert "-b = 2\n+b = 3\n" in answer
    assert (root / "a.py").read_text() == "a = 1\nb = 3\n"
    tools.restore_file(trash_id(answer))
    assert (root / "a.py").read_text() == "a = 1\nb = 2\n"


@pytest.mark.parametrize("old", ["absent", "x", ""])
def test_edit_that_is_missing_or_ambiguous_changes_nothing(tools, root, old):
    (root / "a.txt").write_text("x\nx\nx\n")
    assert tools.edit_file("a.txt", old, "y").startswith("Failed: ")
    assert (root / "a.txt").read_text() == "x\nx\nx\n"


def test_edit_replaces_as_many_as_counted(tools, root):
    (root / "a.txt").write_text("x\nx\nx\n")
    assert tools.edit_file("a.txt", "x", "y", 3).startswith("Edited")
    assert (root / "a.txt").read_text() == "y\ny\ny\n"


def test_edit_cuts_a_huge_difference(tools, root):
    (root / "a.txt").write_text("x\n" * 40_000)
    answer = tools.edit_file("a.txt", "x\n", "y\n", 40_000)
    assert answer.endswith("[the difference is longer and cut here]")
    assert len(answer) < tools_module.MAX_CHARACTERS + 400


def test_move_and_copy(tools, root):
    (root / "d").mkdir()
    (root / "d" / "a.txt").write_text("one")
    assert tools.copy_file("d", "e") == "Copied d to e."
    assert tools.move_file("d/a.txt", "d/b.txt") == "Moved d/a.txt to d/b.txt."
    assert (root / "d" / "b.txt").read_text() == (root / "e" / "a.txt").read_text() == "one"
    (root / "c.txt").write_text("kept")
    for tool in (tools.move_file, tools.copy_file):
        assert tool("d/b.txt", "c.txt").startswith("Failed: File exists")
    assert (root / "c.txt").read_text() == "kept"


def test_create_directory(tools, root):
    assert tools.create_directory("a/b") == "The directory a/b is there."
    assert tools.create_directory("a/b") == "The directory a/b is there."
    assert (root / "a" / "b").is_dir()
    (root / "f").write_text("")
    assert tools.create_directory("f").startswith("Failed: ")


def test_delete_and_restore(tools, root):
    (root / "d").mkdir()
    (root / "d" / "a.txt").write_text("one")
    answer = tools.file_delete("d")
    assert answer.startswith("Deleted d. It is in the trash.")
    assert not (root / "d").exists()
    assert tools.restore_file(trash_id(answer)) == "Restored d."
    assert (root / "d" / "a.txt").read_text() == "one"


def test_restore_does_not_replace_what_took_the_place(tools, root):
    (root / "a.txt").write_text("old")
    kept = trash_id(tools.file_delete("a.txt"))
    (root / "a.txt").write_text("new")
    assert tools.restore_file(kept).startswith("Failed: ")
    assert (root / "a.txt").read_text() == "new"
    assert tools.restore_file(kept, to="b.txt") == "Restored b.txt."
    assert (root / "b.txt").read_text() == "old"


def test_restore_lists_when_the_id_is_missing_or_unknown(tools, root):
    assert tools.restore_file() == "In the trash, newest first:\n[nothing]"
    (root / "a.txt").write_text("old")
    kept = trash_id(tools.file_delete("a.txt"))
    for answer in (tools.restore_file(), tools.restore_file("nonsense"), tools.restore_file("../../x")):
        assert f"{kept}  a.txt  (deleted " in answer
    assert tools.restore_file("nonsense").startswith("There is no nonsense in the trash. ")


def test_restore_shows_nothing_that_may_not_be_read(base, root):
    (root / "seen.txt").write_text("")
    (root / "hidden.txt").write_text("SECRET")
    state = str(base / "state")
    with Jail(root, Policy(write=Rules(allow=["*"])), state=state) as jail:
        jail.delete("seen.txt")
        hidden = jail.delete("hidden.txt").saved
    policy = Policy(read=Rules(deny=["hidden.txt"]), write=Rules(allow=["*"]))
    with Jail(root, policy, state=state) as jail:
        tools = Tools(jail)
        assert "seen.txt" in tools.restore_file()
        assert "hidden.txt" not in tools.restore_file()
        assert tools.restore_file(hidden.id).startswith("There is no ")
        assert tools.restore_file(hidden.id, to="open.txt").startswith("There is no ")
    assert not (root / "hidden.txt").exists()
    assert not (root / "open.txt").exists()


# --- refusals -----------------------------------------------------------------------------------

REFUSED = [
    "..",
    "../outside/secret",
    "a/../../outside/secret",
    "/etc/passwd",
    "{OUT}/secret",
    "out/secret",
    "out_file",
    "dangling",
    "absolute",
    ".env",
    ".ENV",
    "a/.env.local",
    "private/key",
    "private",
    "Private/key",
    "to_private",
    ".fsjail/lock",
    ".fsjail",
    "fsjail.toml",
    "a/fsjail.toml",
]
FAILED = ["", "nul\0", "x" * 5000, "y" * 300, "fifo", "loop", "missing", "a.txt/x", "bad\udcff"]


def calls(path):
    return {
        "read_file": {"file_path": path},
        "list_directory": {"dir_path": path},
        "file_search": {"pattern": "*", "dir_path": path},
        "grep": {"pattern": ".", "dir_path": path},
        "write_file": {"file_path": path, "text": "x"},
        "write_file append": {"file_path": path, "text": "x", "append": True},
        "edit_file": {"file_path": path, "old_text": "SECRET", "new_text": "x"},
        "move_file from": {"source_path": path, "destination_path": "taken"},
        "move_file to": {"source_path": "a.txt", "destination_path": path},
        "copy_file from": {"source_path": path, "destination_path": "taken"},
        "copy_file to": {"source_path": "a.txt", "destination_path": path},
        "create_directory": {"dir_path": path},
        "file_delete": {"file_path": path},
        "restore_file": {"trash_id": "?", "to": path},
    }


def plant(root):
    (root / "a").mkdir()
    (root / "a.txt").write_text("plain\n")
    (root / "private").mkdir()
    for name in (".env", "private/key", "a/.env.local"):
        (root / name).write_text("SECRET")
    (root / "out").symlink_to("../outside")
    (root / "out_file").symlink_to("../outside/secret")
    (root / "absolute").symlink_to(root.parent / "outside" / "secret")
    (root / "dangling").symlink_to("../outside/new")
    (root / "to_private").symlink_to("private")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "fifo")


def state_of(folder):
    found = {}
    for path in sorted(folder.rglob("*")):
        if ".fsjail" in path.parts:
            continue
        info = path.lstat()
        text = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path)] = (info.st_mode, info.st_ino, text)
    return found


@pytest.mark.parametrize("call", list(calls("")))
@pytest.mark.parametrize("path", REFUSED)
def test_attacks_are_refused_in_words(tools, base, root, path, call):
    plant(root)
    path = path.replace("{OUT}", str(base / "outside"))
    arguments = calls(path)[call]
    name = call.split()[0]
    if name == "restore_file":
        (root / "b.txt").write_text("b")
        arguments["trash_id"] = trash_id(tools.file_delete("b.txt"))
    own_name_only = {"out_file", "dangling", "absolute", "to_private"}
    if name in {"file_delete", "move_file"} and path in own_name_only:
        pytest.skip("a link is deleted and moved as itself")
    before = state_of(root), state_of(base / "outside")
    answer = tools.all[name](**arguments)
    # A call that takes a name meets the link itself, which has the name; the others follow it.
    takes_name = call in {"copy_file to", "move_file to", "create_directory", "restore_file"}
    met_link = path in own_name_only and takes_name
    assert answer.startswith(("Refused: ", "Failed: ") if met_link else "Refused: "), answer
    check_clean(answer, path, base)
    assert (state_of(root), state_of(base / "outside")) == before
    if not met_link:
        last = list(tools.jail.audit.events(denied=True))[-1]
        assert last.why, "the log says what refused"
        assert (last.rule is None) == last.why.startswith("jail: ")


@pytest.mark.parametrize("call", list(calls("")))
@pytest.mark.parametrize("path", FAILED)
def test_failures_are_answered_in_words(tools, base, root, path, call):
    plant(root)
    name = call.split()[0]
    answer = tools.all[name](**calls(path)[call])
    assert answer.encode("utf-8")
    check_clean(answer, path, base)
    assert (base / "outside" / "secret").read_bytes() == b"SECRET"
    reads = {"read_file", "list_directory", "file_search", "grep", "edit_file"}
    if name in reads:
        assert answer.startswith(("Failed: ", "Refused: ")), answer


def check_clean(answer, path, base):
    """No secret, no place on the host; what the caller spelled itself is no news to it."""
    assert "SECRET" not in answer
    rest = answer.replace(path, "") if path else answer
    for told in (str(base), "outside/secret", "outside/new", "/proc/", "Traceback"):
        assert told not in rest, answer


def test_a_refusal_names_the_rule_and_what_is_allowed(base, root):
    policy = Policy(read=Rules(deny=["private/"]), write=Rules(allow=["notes/"]))
    with Jail(root, policy, state=str(base / "state")) as jail:
        tools = Tools(jail)
        assert "private/" in tools.read_file("private/x")
        assert "notes/" in tools.write_file("other/x", "text")
        assert "secrets" in tools.read_file(".env")


def test_a_read_only_jail_says_so(base, root):
    (root / "a.txt").write_text("x")
    with Jail(root, state=str(base / "state")) as jail:
        assert Tools(jail).file_delete("a.txt").startswith("Refused: ")
    assert (root / "a.txt").exists()


def test_a_mistake_in_the_program_is_raised(tools):
    with pytest.raises(TypeError):
        tools.read_file(None)
    with pytest.raises(TypeError):
        tools.read_file()


def test_an_error_from_below_tells_no_host_path(jail, monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError(5, "Input/output error", b"/host/place")

    monkeypatch.setattr(type(jail), "listdir", fail)
    assert Tools(jail).list_directory("x") == "Failed: Input/output error"
