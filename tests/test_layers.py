"""The shape of the code: imports run downwards, and each dangerous thing has one room."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import fsjail

PACKAGE = Path(fsjail.__file__).parent

# From the bottom to the top. A module imports from rows below its own, never from its own row: what a
# leaf needs of another leaf, the facade hands it.
ROWS: tuple[tuple[str, set[str]], ...] = (
    ("L0", {"_errors"}),
    ("L0 values", {"_decision", "_presets", "_record", "_trashinfo", "_values"}),
    (
        "L0 pure parts, system calls",
        {"_edit", "_names", "_redact", "_subscribers", "_syscalls", "_toml", "_wildmatch"},
    ),
    ("L0 parts of a leaf", {"_gitignore", "_logfiles", "_selftest"}),
    ("L0 parts of a leaf", {"_matcher"}),
    (
        "L0 parts of a leaf",
        {"_answers", "_chain", "_copying", "_follow", "_query", "_rules", "_verify", "pathspec"},
    ),
    ("L0 parts of a leaf", {"_logreader"}),
    (
        "L1 leaves",
        {"_audit", "_dirs", "_keys", "_limits", "_policy", "_root", "_stage", "_streams", "_underway"},
    ),
    ("L2 on descriptors", {"_home"}),
    ("L2 on descriptors", {"_kept"}),
    ("L2 on descriptors", {"_crash"}),
    ("L2 on descriptors", {"_across"}),
    ("L2 on descriptors", {"_trash"}),
    ("L3 parts of the facade", {"_content", "_door", "_judge", "_lines", "_recover", "_search"}),
    ("L3 its operations", {"_changes", "_reads", "_records"}),
    ("L3 the facade", {"_jail"}),
    ("the public names", {"__init__"}),
    ("L4", {"config", "exporters"}),
    ("L4 parts of the watch", {"_alarm", "_kinds", "_ledger", "_seen", "_watched"}),
    ("L4 parts of the watch", {"_doubts", "_trashwatch", "_tree", "_tripwires"}),
    ("L4 parts of the watch", {"_patrol"}),
    ("L4 the watch", {"watch"}),
    ("L4 parts of the guard", {"_callers", "_kernelname"}),
    ("L4 parts of the guard", {"_scope"}),
    ("L4 parts of the guard", {"_hooked"}),
    ("L4 parts of the guard", {"_rawcalls"}),
    ("L4 the guard", {"guard"}),
    ("L5", {"tools"}),
    ("L6", {"cli"}),
)
ROW = {module: number for number, (_, modules) in enumerate(ROWS) for module in modules}
# The one import that runs upwards: Jail.load hands over to config, inside the method.
UPWARDS = {("_jail", "config"), ("_jail", "exporters"), ("_jail", "guard"), ("_jail", "watch")}

# Who may import what is not everybody's: nothing slow is imported twice, or by accident at start-up.
THIRD_PARTY = {
    "opentelemetry": {"exporters/otel"},
    "pathspec": {"pathspec"},
    "platformdirs": {"_dirs"},
    "re2": {"_lines"},
    "rich": {"cli"},
    "typer": {"cli/_app"},
    "watchdog": {"_watched"},
}
# Who may open and change names of the file system, and why.
CHANGES = {
    "_root": "turns names into descriptors",
    "_selftest": "proves the primitives, on names of the system",
    "_stage": "new content, before it has its name",
    "_copying": "copies and removes trees, from descriptor to descriptor",
    "_across": "hides what it copies until it is whole",
    "_home": "the trash's own folder",
    "_kept": "reads what the trash holds",
    "_crash": "ends or rolls back in the trash what a crash left",
    "_trash": "moves in and out of it",
    "_logfiles": "opens the log's own files",
    "_underway": "marks what is under way, in the log's folder",
    "_watched": "hangs up a bell for notices, for an instant in the log's folder",
    "_patrol": "opens the kept items of a trash outside the root, to watch them",
    "_tripwires": "opens folders outside the root that its owner has named, to watch them",
    "_chain": "makes the log's folder, writes and rotates its files",
    "config": "reads configuration files, once, at the start",
    "_kernelname": "holds a folder for a moment, to ask the kernel for its path",
    "cli/_init": "writes the first fsjail.toml, asked by a person",
    "cli/_probes": "tries what this machine can enforce, in a folder of its own",
    "cli/_say": "points a broken output at /dev/null",
}
# One call each, on a leaf name in a held folder: to make a directory; to read what a search has judged.
ONE_CALL = {("_changes", "os.mkdir"), ("_changes", "os.rmdir"), ("_search", "os.open")}
CHANGING = {
    "chmod",
    "chown",
    "copy_file_range",
    "lchown",
    "link",
    "makedirs",
    "mkdir",
    "mkfifo",
    "mknod",
    "open",
    "remove",
    "removedirs",
    "rename",
    "renames",
    "replace",
    "rmdir",
    "sendfile",
    "symlink",
    "truncate",
    "unlink",
    "utime",
}
# Who may list a folder: by a descriptor, but for the last, which shows a person what an agent cannot see.
LISTS = {
    "_root",
    "_kept",
    "_crash",
    "_copying",
    "_logfiles",
    "_judge",
    "_search",
    "_jail",
    "cli/_survey",
    "_tree",
    "_trashwatch",
    "_tripwires",
}
LISTING = {"fwalk", "listdir", "scandir", "walk"}
# Who may ask the file system about a name by path: it may mean something else a moment later.
BY_PATH = {
    "_root": "the root's own path, when it is opened",
    "_jail": "whether its own folders lie inside the root, when it is opened",
    "_selftest": "looks for a magic link to prove them refused",
    "_dirs": "the id of a root",
    "_rawcalls": "both spellings of what its owner allows; the guard only looks on",
    "config": "where the search begins; where the trash lies",
    "watch": "whether a tripwire lies inside the root, when it is made",
    "_patrol": "whether the jail's own folders lie inside the root, when it begins",
    "_tripwires": "names of the host, given by its owner",
    "cli": "a person's own questions; no call of an agent passes here",
}
ASKING = {"exists", "isdir", "isfile", "islink", "ismount", "lexists", "realpath", "samefile"}

PUBLIC = [
    "Jail",
    "Policy",
    "Rules",
    "Decision",
    "Limits",
    "Entry",
    "Hit",
    "Change",
    "TrashItem",
    "Event",
    "JailError",
    "AccessDenied",
    "OutOfBounds",
    "PolicyDenied",
    "NotRegularFile",
    "LimitExceeded",
    "ConfigError",
    "TrashError",
]


@dataclass(frozen=True)
class Module:
    """One source file: `name` as in the tables above (`cli/_app`), `top` the part that has a row."""

    name: str
    tree: ast.Module

    @property
    def top(self) -> str:
        return self.name.split("/")[0]

    def imports(self) -> Iterator[str]:
        """Dotted names of what is imported, also inside functions; what only types need is left out."""
        for node in _running(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.name}: a relative import"
                yield from (f"{node.module}.{alias.name}" for alias in node.names)

    def calls(self) -> Iterator[tuple[str, ast.Call]]:
        """Dotted names of what is called, as written."""
        for node in _running(self.tree):
            if isinstance(node, ast.Call):
                yield ast.unparse(node.func), node


def _running(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from _running(child)


def _read(path: Path) -> Module:
    name = path.relative_to(PACKAGE).with_suffix("").as_posix()
    return Module(name, ast.parse(path.read_text("utf-8")))


MODULES = [_read(path) for path in sorted(PACKAGE.rglob("*.py"))]


def _inner(dotted: str) -> str | None:
    """The module of ours that an import reaches: `fsjail._root.Root` is `_root`."""
    parts = dotted.split(".")
    if parts[0] != "fsjail":
        return None
    second = parts[1] if len(parts) > 1 else ""
    return second if second in {module.top for module in MODULES} else "__init__"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
class TestModule:
    def test_imports_run_downwards(self, module):
        assert module.top in ROW, f"{module.name} has no row yet: say which layer it belongs to"
        for dotted in module.imports():
            inner = _inner(dotted)
            if inner is None or (inner == module.top and "/" in module.name):  # within a package of ours
                continue
            assert ROW[inner] < ROW[module.top] or (module.name, inner) in UPWARDS, f"{module.name} → {inner}"

    def test_third_parties_have_one_door_each(self, module):
        for dotted in module.imports():
            allowed = THIRD_PARTY.get(dotted.split(".")[0])
            assert allowed is None or {module.name, module.top} & allowed, f"{module.name} imports {dotted}"

    def test_nothing_else_is_imported(self, module):
        known = {*sys.stdlib_module_names, *THIRD_PARTY, "fsjail"}
        assert {dotted.split(".")[0] for dotted in module.imports()} <= known

    def test_changes_have_their_rooms(self, module):
        changes = {f"os.{name}" for name in CHANGING} | {"open", "io.open", "os.popen", "os.system"}
        found = {name for name in _reached(module) if name in changes or name.startswith("shutil.")}
        found -= {"shutil.get_terminal_size"} | {name for room, name in ONE_CALL if room == module.name}
        assert module.name in CHANGES or not found, f"{module.name} uses {sorted(found)}"

    def test_listings_have_their_rooms(self, module):
        found = {f"os.{name}" for name in LISTING} & _reached(module)
        assert module.name in LISTS or not found, f"{module.name} uses {sorted(found)}"

    def test_no_question_by_path(self, module):
        found = {f"os.path.{name}" for name in ASKING} & _reached(module)
        found |= {
            f"{name}()"
            for name, call in module.calls()
            if name.endswith(".resolve") and not call.args and not call.keywords
        }
        assert module.top in BY_PATH or not found, f"{module.name} uses {sorted(found)}"

    def test_no_name_that_says_nothing(self, module):
        assert not {"utils", "core", "models", "manager", "handler"} & set(module.name.strip("_").split("/"))


def _reached(module: Module) -> set[str]:
    """Names called or imported one by one; `from os import open` is no way round."""
    return {name for name, _ in module.calls()} | {
        name for name in module.imports() if name.startswith(("os.", "shutil."))
    }


def test_upward_import_is_inside_a_function():
    (jail,) = [module for module in MODULES if module.name == "_jail"]
    top = [node for node in jail.tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert "config" not in "".join(map(ast.unparse, top))


def test_tables_name_only_what_exists():
    names = {module.name for module in MODULES} | {module.top for module in MODULES}
    named = {*ROW, *CHANGES, *LISTS, *BY_PATH, *(name for names_ in THIRD_PARTY.values() for name in names_)}
    assert named <= names, named - names


def test_public_names():
    assert sorted(fsjail.__all__) == sorted(PUBLIC)
    assert all(hasattr(fsjail, name) for name in PUBLIC)
    assert set(PUBLIC) <= set(dir(fsjail))


def test_public_names_are_imported_when_they_are_used():
    script = """
import sys, fsjail
print([name for name in sys.modules if name.startswith("fsjail.")])
from fsjail import *
assert all(globals()[name] is getattr(fsjail, name) for name in fsjail.__all__)
assert Policy is fsjail.Policy is fsjail._policy.Policy
"""
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="no attribute 'jail'"):
        fsjail.jail  # noqa: B018 - that is the question


def test_every_module_imports():
    for module in MODULES:
        if not module.name.endswith("__main__"):
            importlib.import_module(
                ".".join(["fsjail", *module.name.removesuffix("__init__").strip("/").split("/")]).rstrip(".")
            )


def test_import_is_light():
    """Everything public is imported, and nothing that costs start-up time."""
    heavy = [
        "asyncio",
        "pathspec",
        "platformdirs",
        "re2",
        "rich",
        "shutil",
        "tempfile",
        "typer",
        "watchdog",
    ]
    script = f"""
import fsjail, sys
for name in fsjail.__all__:
    getattr(fsjail, name)
print([name for name in {heavy} if name in sys.modules])
"""
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
