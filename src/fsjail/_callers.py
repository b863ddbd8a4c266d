"""Whose code raised an audit event: fsjail's own, the import system's, a library's, or anybody's.

A name is no proof: code can be compiled with any file name, and run in any module's globals. So a frame is
taken for fsjail's or the import system's only if its code object is one that was there when the first guard
began, in its own module's globals; and for a library's only if the file that it names, in the folders of the
interpreter, holds that very code.

Does not stop: code that puts its functions into these modules, or lets C code call back without a frame of
its own while such a frame is the last one.
"""

from __future__ import annotations

import importlib._bootstrap
import importlib._bootstrap_external
import linecache
import os
import site
import sys
import sysconfig
import threading
import tokenize
import zipimport
from importlib.machinery import SourceFileLoader
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fsjail._root import Root

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

OWN: Final = "fsjail"
IMPORT: Final = "import"
TRACE: Final = "trace"

_PACKAGE: Final = os.path.dirname(__file__) + os.sep
_PROGRAM: Final = f"{_PACKAGE}cli{os.sep}"
_CLIMB: Final = 32  # frames; our own calls of the standard library are not deeper
_FOREIGN_MAX: Final = 4096
# A module is being brought in, and not only its file's bytes: loader.get_data(path) reads any file.
_IMPORTING: Final = {"_find_and_load", "exec_module", "get_code", "_exec"}


class _Known(NamedTuple):
    code: CodeType  # held, so that its id is not given to another
    label: str
    space: dict[str, Any] | None  # the globals that it must run in


_KNOWN: dict[int, _Known] = {}
_TAKEN: set[str] = set()
_FOREIGN: dict[int, CodeType] = {}
_FILES: dict[str, dict[tuple[str, int], list[CodeType]]] = {}
# Wrappers that stand between a caller and the function they replace: the caller is the frame above.
CLEAR: dict[int, CodeType] = {}  # by id: hashing a code object takes longer than all the rest
_LOCK = threading.RLock()


def places() -> tuple[str, ...]:
    """The folders that belong to the interpreter, each with a slash at its end."""
    found = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    shared = sysconfig.get_config_var(
        "DESTSHARED"
    )  # of the interpreter itself, also in a virtual environment
    found += [os.path.dirname(shared)] if shared else []
    found += [*site.getsitepackages(), "/usr/lib/python3/dist-packages"]
    if site.ENABLE_USER_SITE:
        found.append(site.getusersitepackages())
    zones = sysconfig.get_config_var("TZPATH") or ""
    found += [zone for zone in zones.split(os.pathsep) if os.path.isabs(zone)]
    both = [*map(os.path.abspath, found), *map(os.path.realpath, found)]
    return tuple(dict.fromkeys(f"{place}{os.sep}" for place in both if place != os.sep))


PLACES: Final = places()


def prepare() -> None:
    """Take down which code is fsjail's and the import system's, as far as it is loaded and not yet known."""
    with _LOCK:
        if not _KNOWN:
            for module in (importlib._bootstrap, importlib._bootstrap_external, zipimport, importlib):  # noqa: SLF001 - frozen modules
                _take(module, IMPORT)
            for module in (linecache, tokenize):
                _take(module, TRACE)
        for name in [name for name in sys.modules if name == "fsjail" or name.startswith("fsjail.")]:
            if name not in _TAKEN and not name.startswith("fsjail.cli"):
                _TAKEN.add(name)
                _take(sys.modules[name], OWN)


def _take(module: ModuleType, label: str) -> None:
    space = vars(module)
    for code in _codes_of(space.values(), module):
        if id(code) not in CLEAR:
            _KNOWN.setdefault(id(code), _Known(code, label, space))


def _codes_of(values: Iterable[object], module: ModuleType) -> Iterator[CodeType]:
    """The code of a module's functions and of its classes' methods, and of what is defined in them."""
    for value in list(values):
        if isinstance(value, type):
            if sys.modules.get(value.__module__) is module:  # importlib's modules have two names
                yield from _codes_of(list(vars(value).values()), module)
            continue
        # Underneath a staticmethod, classmethod or property, and a decorator that keeps what it wraps.
        for part in (value, *(getattr(value, name, None) for name in ("fget", "fset", "fdel"))):
            inner = part
            while inner is not None:
                code = getattr(inner, "__code__", None)
                if isinstance(code, CodeType):
                    yield from _nested(code)
                inner = getattr(inner, "__wrapped__", None)


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def label(frame: FrameType) -> str | None:
    """Say whose code a frame runs: `OWN`, `IMPORT`, `TRACE`, a library's file, or None for anybody's."""
    code = frame.f_code
    known = _KNOWN.get(id(code))
    if known is None:
        file = code.co_filename
        inner = str.startswith(file, _PACKAGE) and not str.startswith(file, _PROGRAM)
        if not (inner or str.startswith(file, PLACES) or str.startswith(file, "<frozen ")):
            return None
        if id(code) in _FOREIGN or os.path.normpath(file) != file or not _is_of_file(code, str.__str__(file)):
            if len(_FOREIGN) >= _FOREIGN_MAX:
                _FOREIGN.clear()
            _FOREIGN[id(code)] = code
            return None
        known = _KNOWN.setdefault(id(code), _Known(code, OWN if inner else file, None))
    return known.label if known.space is None or known.space is frame.f_globals else None


def _is_of_file(code: CodeType, file: str) -> bool:
    """Whether the file that a code object names holds that code, and not only its name."""
    if id(code) in CLEAR:
        return False
    held = _FILES.get(file)
    if held is None:
        held = {}
        for each in _load(file):
            held.setdefault((each.co_qualname, each.co_firstlineno), []).append(each)
        _FILES[file] = held
    return code in held.get((code.co_qualname, code.co_firstlineno), ())


def _load(file: str) -> list[CodeType]:
    found: object
    try:
        if file.startswith("<frozen "):
            import _imp  # noqa: PLC0415 - CPython's own

            found = _imp.get_frozen_object(file[8:-1])
        else:
            found = SourceFileLoader("_", file).get_code("_")
    except Exception:  # noqa: BLE001 - whatever is wrong with the file: then nothing vouches for the code
        return []
    return list(_nested(found)) if isinstance(found, CodeType) else []


def begins(frame: FrameType | None) -> bool:
    """Whether a jail is being made: in a guard that would be a door with rules of its own."""
    return frame is not None and frame.f_code is Root.__init__.__code__


# Other names under which a call of this event is made.
_ALSO: Final = {
    "remove": ("unlink",),
    "rename": ("replace",),
    "chmod": ("fchmod",),
    "chown": ("fchown", "lchown"),
    "truncate": ("ftruncate",),
}
_STATEMENTS: Final = {"_find_and_load", "_handle_fromlist"}  # what an import statement calls


def own(frame: FrameType | None, event: str) -> bool:
    """Whether fsjail itself made this call, directly or through a library; its command line is a program.

    The code of ours must be one that makes such calls, by the names in it: an object that an agent hands us
    can have C functions as its methods (``__fspath__ = functools.partial(os.remove, …)``), which have no
    frame of their own.
    """
    if begins(frame):
        return False
    called = event.rpartition(".")[2]
    names, imported = {called, *_ALSO.get(called, ())}, False
    for _ in range(_CLIMB):
        if frame is None:
            return False
        code = frame.f_code
        if id(code) not in CLEAR:
            whose = label(frame)
            if whose is None:
                return False
            if whose == OWN:
                return imported or not names.isdisjoint(code.co_names)
            names = {code.co_name, code.co_qualname.rpartition(".")[0].rpartition(".")[2]}
            imported = whose == IMPORT and code.co_name in _STATEMENTS
        frame = frame.f_back
    return False


def importing(frame: FrameType | None, *, writes: bool = False) -> bool:
    """Whether the import system makes this call because a module is being brought in.

    Args:
        frame: the caller.
        writes: whether it writes; then its loader must be one that takes what it caches from the file itself.
    """
    while frame is not None and label(frame) == IMPORT:
        name = frame.f_code.co_name
        if writes and name == "get_code":
            loader = frame.f_locals.get("self")
            return type(loader) is SourceFileLoader and vars(loader).keys() == {"name", "path"}
        if not writes and name in _IMPORTING:
            return True
        frame = frame.f_back
    return False


def tracing(frame: FrameType | None) -> bool:
    """Whether a source line is read for a traceback."""
    while frame is not None and label(frame) == TRACE:
        if frame.f_code.co_name == "updatecache":
            return True
        frame = frame.f_back
    return False


def library(frame: FrameType | None, within: str) -> bool:
    """Whether a library, and not somebody's code, made this call of a function in the folder ``within``."""
    inside = False
    while frame is not None and (whose := label(frame)) is not None:
        if f"{os.sep}{within}{os.sep}" not in whose:
            return inside
        inside = True
        frame = frame.f_back
    return False
