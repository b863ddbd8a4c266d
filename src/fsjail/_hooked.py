"""The audit events of CPython that concern files, and what each asks for.

From the tables of events of CPython 3.11 to 3.13, tried one by one. Events of convenience functions
(``shutil.copyfile``, ``glob.glob``, ``os.walk``, ``tempfile.mkstemp``) are left out: the calls that these
make have events of their own. No event at all have stat, access, readlink, mkfifo, mknod, shm_open, and what
C libraries open by themselves.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

from fsjail import _callers, _scope
from fsjail._kernelname import is_folder, is_there

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    Asks = Sequence["Ask"]

RUN: Final = "guard: process"
LOAD: Final = "guard: native code"
THREAD: Final = "guard: thread"
JAIL: Final = "guard: another jail"
UNCLEAR: Final = "guard: unclear"

_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Interpreters beside this one have no hook of ours. Their own event cannot be refused: 3.12 crashes then.
_OTHER_INTERPRETERS: Final = {"_xxsubinterpreters", "_interpreters"}


class Ask(NamedTuple):
    """One thing that an event asks for.

    Attributes:
        op: as for ``Jail.check``; or "run", "load".
        path: as the caller gave it: a text, bytes, a descriptor, or None for the working directory.
        at: the descriptor that ``path`` is relative to, -1 for the working directory, None if unknown.
        follow: whether a link at the last component is followed.
        to: the other end of a move.
        to_at: as ``at``, for ``to``.
        why: the label of an answer that no policy gives: always no.
        argv: the command line of a process.
        text: whether ``path`` is a text to show and no path.
    """

    op: str
    path: object
    at: int | None = -1
    follow: bool = True
    to: object = None
    to_at: int = -1
    why: str = ""
    argv: Sequence[object] = ()


def exact(value: Any) -> str | bytes | int | None:
    """Give a path as what it is to the kernel, without running a method of the caller's own class.

    Raises:
        TypeError: it is something that is asked for its path, and could answer otherwise the next time.
    """
    kind = type(value)  # isinstance() would believe a made-up __class__
    if issubclass(kind, str):
        return str.__str__(value)
    if issubclass(kind, bytes):
        return bytes.__getitem__(value, slice(None))
    if value is None or issubclass(kind, int):
        return None if value is None else int.__index__(value)
    pathlib = sys.modules.get("pathlib")
    if pathlib is not None and kind in {pathlib.PosixPath, pathlib.PurePosixPath}:
        return str(value)
    raise TypeError("an object that is asked for its path")


def _open(args: Sequence[Any], frame: FrameType | None) -> Asks:
    path, mode, flags = args[:3]
    if _callers.begins(_scope.caller(frame)):
        return (Ask("run", "Jail", why=JAIL),)
    if issubclass(type(path), int):  # a file object for a descriptor that is open already
        return ()
    writes = flags & _WRITES or (isinstance(mode, str) and set(mode) & set("wax+"))
    if not writes:
        op = "read"
    elif flags & os.O_ACCMODE == os.O_WRONLY or flags & (os.O_TRUNC | os.O_EXCL):
        op = "write"
    else:
        op = "edit"
    if flags & getattr(os, "O_TMPFILE", 0) == getattr(os, "O_TMPFILE", -1):
        op = "write"  # a file without a name; the folder is what is judged
    at: int | None = -1
    if mode is None:  # os.open: the event does not tell its dir_fd, our wrapper's frame does
        at = _scope.dir_fd_of(frame)
    return (Ask(op, path, at, follow=not flags & os.O_NOFOLLOW or op == "read"),)


def _plain(op: str, at: int | None = None, *, follow: bool = True) -> Callable[..., Asks]:
    """An event whose first argument is the path, and number ``at`` its folder's descriptor."""

    def asks(args: Sequence[Any], _frame: FrameType | None) -> Asks:
        return (Ask(op, args[0], -1 if at is None or args[at] is None else args[at], follow=follow),)

    return asks


def _rename(args: Sequence[Any], _frame: FrameType | None) -> Asks:
    return (Ask("move", args[0], args[2], follow=False, to=args[1], to_at=args[3]),)


def _link(args: Sequence[Any], _frame: FrameType | None) -> Asks:
    # A second name for a file: who may write the one writes the other. The source may be a link that is
    # followed.
    return (
        Ask("move", args[0], args[2], follow=False, to=args[1], to_at=args[3]),
        Ask("edit", args[0], args[2]),
    )


def _symlink(args: Sequence[Any], _frame: FrameType | None) -> Asks:
    name, at = args[1], args[2]
    asks = [Ask("write", name, at, follow=False)]
    text, place = exact(args[0]), exact(name)
    if isinstance(text, str | bytes) and isinstance(place, str | bytes):  # where the link will lead
        asks.append(Ask("read", os.path.join(os.path.dirname(os.fsdecode(place)), os.fsdecode(text)), at))
    return asks


def _sqlite(args: Sequence[Any], _frame: FrameType | None) -> Asks:
    return _database(args[0])


def _database(value: object) -> Asks:
    name = exact(value)
    if not isinstance(name, str | bytes):
        return (Ask("edit", value),)
    text = os.fsdecode(name)
    if text in {"", ":memory:"}:
        return ()
    if not text.startswith("file:"):
        return (Ask("edit", text),)
    # Whether it is read as an address is not told here. If not, it is a plain name with an odd beginning.
    folder = os.path.dirname(text)
    odd = is_folder(folder) if folder else is_there(text)
    asks = [Ask("edit", text)] if odd else []
    address = text[5:].partition("#")[0]
    path, _, query = address.partition("?")
    if path.startswith("//"):
        path = f"/{path[2:].partition('/')[2]}"
    path = os.fsdecode(unquote_to_bytes(os.fsencode(path)))
    modes = [found for key, found in parse_qsl(query, keep_blank_values=True) if key == "mode"]
    if path in {"", ":memory:"} or modes == ["memory"]:
        return asks
    return [*asks, Ask("read" if modes == ["ro"] else "edit", path)]


def _sqlite_attach(args: Sequence[Any], _frame: FrameType | None) -> Asks:
    if args[0] is None:  # an expression: sqlite does not tell its value beforehand
        return (Ask("edit", "ATTACH ?", why=UNCLEAR),)
    return _database(args[0])


def _socket(op: str) -> Callable[..., Asks]:
    def asks(args: Sequence[Any], _frame: FrameType | None) -> Asks:
        address = args[1]
        if not isinstance(address, str | bytes) or not address or exact(address)[:1] in {"\0", b"\0"}:  # type: ignore[index]
            return ()  # no name in the file system
        return (Ask(op, address),)

    return asks


def _told(frame: FrameType | None, *names: str) -> bool:
    """Whether subprocess calls, by these functions of its own, and so has told of it already."""
    for name in names:
        if frame is None or frame.f_code.co_name != name or _callers.label(frame) is None:
            return False
        frame = frame.f_back
    return True


def _run(args: Sequence[Any], frame: FrameType | None) -> Asks:
    executable, argv = args[0], args[1]
    words = argv if isinstance(argv, list | tuple) else [argv]
    if _told(frame, "_posix_spawn", "_execute_child"):
        return ()
    return (Ask("run", words[0] if executable is None and words else executable, why=RUN, argv=words),)


def _system(args: Sequence[Any], _frame: FrameType | None) -> Asks:
    return (Ask("run", args[0], why=RUN, argv=[args[0]]),)


def _fork_exec(args: Sequence[Any], frame: FrameType | None) -> Asks:
    if _told(_scope.caller(frame), "_execute_child"):
        return ()
    return _run((None, list(args[0])), None)


def _spawn(args: Sequence[Any], _frame: FrameType | None) -> Asks:
    return _run((None, args[0]), None)


def _native(args: Sequence[Any], frame: FrameType | None) -> Asks:
    """Native code escapes the guard; what a library looks up for itself is the library's business."""
    if _callers.library(frame, "ctypes"):
        return ()
    name = args[-1] if isinstance(args[-1], str | bytes) else None
    return (Ask("load", "this program" if name is None else name, why=LOAD),)


def _sqlite_extension(args: Sequence[Any], _frame: FrameType | None) -> Asks:
    return (Ask("load", args[1], why=LOAD),)


def _import(args: Sequence[Any], _frame: FrameType | None) -> Asks:
    name, file = args[0], args[1]
    if name in _OTHER_INTERPRETERS:
        return (Ask("load", name, why=LOAD),)
    return () if file is None else (Ask("load", file),)


def _thread(_args: Sequence[Any], _frame: FrameType | None) -> Asks:
    # Our wrapper's own call never comes here. This one bypassed it, and the new thread would be free.
    return (Ask("run", "thread", why=THREAD),)


ASKS: Final[dict[str, Callable[[Sequence[Any], FrameType | None], Asks]]] = {
    "open": _open,
    "os.listdir": _plain("list"),
    "os.scandir": _plain("list"),
    "os.chdir": _plain("list"),
    "os.getxattr": _plain("read"),
    "os.listxattr": _plain("read"),
    "os.setxattr": _plain("write"),
    "os.removexattr": _plain("write"),
    "os.truncate": _plain("write"),
    "os.chmod": _plain("write", 2),
    "os.chown": _plain("write", 3),
    "os.utime": _plain("write", 3),
    "os.chflags": _plain("write"),
    "os.lchflags": _plain("write"),
    "os.lchmod": _plain("write"),
    "os.mkdir": _plain("mkdir", 2, follow=False),
    "os.rmdir": _plain("delete", 1, follow=False),
    "os.remove": _plain("delete", 1, follow=False),
    "shutil.rmtree": _plain("delete", 1, follow=False),
    "os.rename": _rename,
    "os.link": _link,
    "os.symlink": _symlink,
    "sqlite3.connect": _sqlite,
    "sqlite3.load_extension": _sqlite_extension,
    _scope.ATTACH: _sqlite_attach,
    "socket.bind": _socket("write"),
    "socket.connect": _socket("edit"),
    "socket.sendto": _socket("edit"),
    "socket.sendmsg": _socket("edit"),
    "subprocess.Popen": _run,
    "os.exec": _run,
    "os.posix_spawn": _run,
    "os.startfile": _system,
    "os.system": _system,
    "pty.spawn": _spawn,
    _scope.FORK_EXEC: _fork_exec,
    "ctypes.dlopen": _native,
    "ctypes.dlsym": _native,
    "ctypes.dlsym/handle": _native,
    "ctypes.call_function": _native,
    "import": _import,
    "_thread.start_new_thread": _thread,
    "_thread.start_joinable_thread": _thread,
}
