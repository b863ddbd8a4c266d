"""File tools for an agent: plain typed functions over one :class:`fsjail.Jail`.

``file_tools(jail)`` makes them. Every agent framework turns such functions into tools by their
names, signatures and docstrings, so the docstrings below are written for a model. Each function
answers with text: a refusal, an ordinary failure and a limit come back as one line that starts
with ``Refused:``, ``Failed:`` or ``Limit:`` and never hold a path of the host. Only a mistake in
the program itself (a ``TypeError``, say) is raised.
"""

from __future__ import annotations

import json
from functools import wraps
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, get_type_hints

from fsjail._errors import AccessDenied, JailError, LimitExceeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fsjail._jail import Jail
    from fsjail._trashinfo import TrashItem
    from fsjail._values import Change, Entry

# What one answer may hold, so that a huge file or tree never floods a model's context.
MAX_CHARACTERS = 40_000
MAX_ENTRIES = 1_000
MAX_HITS = 200
MAX_HIT_CHARACTERS = 300
MAX_TRASH_ITEMS = 20
# How many characters read_file reads on beyond what it shows, only to count the lines.
_COUNTED = 16 * 2**20
_CHUNK = 64 * 2**10
_HUGE_LINES = 500


def file_tools(jail: Jail, include: Iterable[str] | None = None) -> list[Callable[..., str]]:
    """Make the file tools of one jail.

    Args:
        jail: the jail that answers every call.
        include: the names of the tools wanted; all of them if left out.

    Returns:
        The functions, in a fixed order. Their annotations are real types, and each returns ``str``.

    Raises:
        ValueError: ``include`` holds an unknown name; the message lists the known ones.
    """
    makers = (_readers, _writers, _movers)
    tools = {tool.__name__: _acting(jail, tool) for make in makers for tool in make(jail)}
    if include is None:
        return list(tools.values())
    wanted = {include} if isinstance(include, str) else set(include)
    if unknown := sorted(wanted - tools.keys()):
        message = f"unknown tool: {', '.join(unknown)}; known: {', '.join(tools)}"
        raise ValueError(message)
    return [tool for name, tool in tools.items() if name in wanted]


def _acting(jail: Jail, tool: Callable[..., str]) -> Callable[..., str]:
    """Put the tool's name into what the jail logs of its calls."""
    # Real types instead of strings: some schema makers read __annotations__ as they are.
    tool.__annotations__ = get_type_hints(tool)
    tool.__qualname__ = tool.__name__

    @wraps(tool)
    def named(*args: Any, **kwargs: Any) -> str:
        with jail.acting(tool.__name__):
            return tool(*args, **kwargs)

    return named


def _readers(jail: Jail) -> list[Callable[..., str]]:
    """Make the tools that only look."""

    def read_file(file_path: str, start_line: int = 1, line_count: int | None = None) -> str:
        """Read a UTF-8 text file, whole or a range of its lines.

        The text comes back as it is. When it is not the whole file, a last line in square brackets tells
        which lines these are, how many there are, and where to go on. A refusal starts with "Refused:"; do
        not try another spelling of the same path.

        Args:
            file_path: the file, relative to the project root, with "/" between names.
            start_line: the first line wanted, counted from 1.
            line_count: how many lines; to the end (or to the size limit of one answer) if left out.
        """
        return _answer(lambda: _read(jail, file_path, start_line, line_count))

    def list_directory(dir_path: str = ".") -> str:
        """List what is in a directory, one name a line, without going deeper.

        A directory's name ends with "/". Files show their size. What may not be read is not shown.

        Args:
            dir_path: the directory, relative to the project root; the root itself if left out.
        """
        return _answer(lambda: _list(jail, dir_path))

    def file_search(pattern: str, dir_path: str = ".") -> str:
        """Find files and directories by name, one path a line, relative to the project root.

        Use grep to search inside files. What may not be read is not found.

        Args:
            pattern: a glob. Without "/" it matches the name at any depth ("*.py"); with "/" it matches the
                path below dir_path ("src/**/test_*.py").
            dir_path: where to search, with everything below; the project root if left out.
        """
        return _answer(lambda: _search(jail, pattern, dir_path), ValueError)

    def grep(
        pattern: str, dir_path: str = ".", file_pattern: str | None = None, ignore_case: bool = False
    ) -> str:
        """Search the text of files with a regular expression, one hit a line as "path:line: text".

        The syntax is RE2: no backreferences and no look-around. Binary files and what may not be read are
        passed over.

        Args:
            pattern: the regular expression; escape ( ) [ ] . * + ? to find them as they are.
            dir_path: the directory to search, with everything below, or one file; the project root if
                left out.
            file_pattern: only files whose name matches this glob ("*.py", "src/**/*.md").
            ignore_case: true to find upper and lower case alike.
        """
        return _answer(
            lambda: _grep(jail, pattern, dir_path, file_pattern, ignore_case=ignore_case), ValueError
        )

    return [read_file, list_directory, file_search, grep]


def _writers(jail: Jail) -> list[Callable[..., str]]:
    """Make the tools that change one file's text."""

    def write_file(file_path: str, text: str, append: bool = False) -> str:
        """Write a text file: make it, replace all of it, or add to its end.

        Missing directories are made. An old version goes to the trash, and the answer says its id. To
        change a part of a file, use edit_file.

        Args:
            file_path: the file, relative to the project root, with "/" between names.
            text: the whole new text, or the text to add.
            append: true to add to the end instead of replacing.
        """
        return _answer(lambda: _write(jail, file_path, text, append=append))

    def edit_file(file_path: str, old_text: str, new_text: str, count: int = 1) -> str:
        """Replace a piece of a text file and answer with the difference.

        Nothing is changed unless old_text is found exactly count times; the answer then tells what was found.
        The old version goes to the trash.

        Args:
            file_path: the file, relative to the project root.
            old_text: the text to replace, exactly as it stands in the file, with enough lines around it to
                be unique.
            new_text: the text to put there.
            count: how many times old_text must be found; all of them are replaced.
        """
        return _answer(lambda: _edit(jail, file_path, old_text, new_text, count))

    return [write_file, edit_file]


def _movers(jail: Jail) -> list[Callable[..., str]]:
    """Make the tools that change names, and the one that brings back."""

    def move_file(source_path: str, destination_path: str) -> str:
        """Move or rename a file, or a directory with everything in it.

        It never replaces something that is there.

        Args:
            source_path: what to move, relative to the project root.
            destination_path: its whole new path, not only the directory to put it in.
        """
        return _answer(lambda: _move(jail, source_path, destination_path))

    def copy_file(source_path: str, destination_path: str) -> str:
        """Copy a file, or a directory with everything in it.

        It never replaces something that is there.

        Args:
            source_path: what to copy, relative to the project root.
            destination_path: the whole path of the copy, not only the directory to put it in.
        """
        return _answer(lambda: _copy(jail, source_path, destination_path))

    def create_directory(dir_path: str) -> str:
        """Make a directory and the missing ones above it. It is no failure if it is there already.

        Args:
            dir_path: the directory, relative to the project root.
        """
        return _answer(lambda: _mkdir(jail, dir_path))

    def file_delete(file_path: str) -> str:
        """Delete a file, or a directory with everything in it.

        It goes to the trash, and restore_file brings it back; the answer says the id.

        Args:
            file_path: what to delete, relative to the project root.
        """
        return _answer(lambda: _delete(jail, file_path))

    def restore_file(trash_id: str = "", to: str | None = None) -> str:
        """Bring back something deleted, or the old version of a file that was written or edited.

        Without an id, or with an unknown one, it lists what was lately put in the trash. An old version
        takes the place of the present one, which goes to the trash in its turn. Something deleted does not
        replace a file that is at its place by now; use "to" then.

        Args:
            trash_id: the id that file_delete, write_file or edit_file answered.
            to: another path to restore it to; its old place if left out.
        """
        return _answer(lambda: _restore(jail, trash_id, to))

    return [move_file, copy_file, create_directory, file_delete, restore_file]


def _answer(call: Callable[[], str], *also: type[Exception]) -> str:
    """Call, and turn what a tool call can meet into text.

    Args:
        call: the work.
        also: more errors whose message is meant for the caller (a pattern that cannot work).
    """
    try:
        text = call()
    except AccessDenied as error:
        text = f"Refused: {error}"
    except LimitExceeded as error:
        text = f"Limit: {error}"
    except UnicodeDecodeError:
        text = "Failed: this is not a UTF-8 text file."
    except UnicodeEncodeError:
        text = "Failed: the text holds half a surrogate pair, which UTF-8 cannot write."
    except JailError as error:
        text = f"Failed: {error}"
    except OSError as error:
        # Only the system's own text and the caller's own spelling: str(error) could hold more.
        asked = f": {_shown(error.filename)}" if isinstance(error.filename, str) else ""
        text = f"Failed: {error.strerror or type(error).__name__}{asked}"
    except MemoryError:
        text = "Limit: there is not enough memory for this; work on a smaller part."
    except also as error:
        text = f"Failed: {error}"
    # A lone surrogate (a name that is not UTF-8) would break the JSON that carries the answer.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _shown(name: str) -> str:
    """Spell a name so that it stays on its line: a newline in a name could forge a line of the answer."""
    return name if name.isprintable() else json.dumps(name)


def _lines(found: Iterator[str], most: int, what: str, empty: str) -> str:
    """Join up to so many lines, and say when there are more."""
    shown: list[str] = []
    try:
        shown.extend(islice(found, most))
        if next(found, None) is not None:
            shown.append(f"[more than {most} {what}: only the first {most} are shown; narrow the search]")
    except LimitExceeded as error:
        # What was found until then is worth more than nothing.
        if not shown:
            raise
        shown.append(f"[not complete: {error}]")
    return "\n".join(shown) or f"[{empty}]"


def _read(jail: Jail, path: str, start: int, count: int | None) -> str:
    if start < 1 or (count is not None and count < 1):
        return "Failed: start_line and line_count are counted from 1."
    try:
        with jail.open(path) as stream:
            return _range(stream, start, count)
    except LimitExceeded:
        # The whole file is over the jail's limit; some lines of it need not be.
        return _range_of_huge(jail, path, start, count)


def _range(stream: IO[str], start: int, count: int | None) -> str:
    """Take the lines from a file, and count all of them within reason."""
    kept: list[str] = []
    room, beyond, ended = MAX_CHARACTERS, _COUNTED, True
    line, first_cut = 1, 0
    # Pieces of lines, never whole lines: one line can be as long as the file.
    while piece := stream.readline(_CHUNK):
        if line >= start and (count is None or line < start + count) and not first_cut:
            kept.append(piece[:room])
            room -= len(piece)
            if room < 0:
                first_cut = line
        elif kept:
            beyond -= len(piece)
        ended = piece.endswith("\n")
        line += ended
        if beyond < 0:
            break
    text = "".join(kept)
    total = line - 1 if ended else line
    return text + _range_note(text, start, total, cut=first_cut, open_ended=beyond < 0)


def _range_of_huge(jail: Jail, path: str, start: int, count: int | None) -> str:
    """Take lines of a file that is not read to its end."""
    lines = jail.read_lines(path, start, min(count or _HUGE_LINES, _HUGE_LINES))
    if not lines:
        return f"[there is no line {start}]"
    text = "\n".join(lines)
    cut = ""
    if len(text) > MAX_CHARACTERS:
        text = text[:MAX_CHARACTERS]
        cut = f", cut after {MAX_CHARACTERS} characters"
    last = start + text.count("\n")
    more = f"go on with start_line={last if cut and last > start else last + 1}"
    return f"{text}\n[lines {start}-{last} of a file too large to count{cut}; {more}]"


def _range_note(text: str, start: int, total: int, *, cut: int, open_ended: bool) -> str:
    """Say which lines an answer of read_file holds; nothing if it is the whole file."""
    if not text:
        if total < 1:
            return "[the file is empty]"
        return f"[there is no line {start}: the file has {total} lines]"
    last = start + text.count("\n") - text.endswith("\n")
    known = f"more than {total}" if open_ended else f"{total}"
    if cut and text.count("\n") == 0:
        return (
            f"\n[line {start} of {known} is too long and cut after {len(text)} characters; "
            f"grep finds text in it, start_line={start + 1} goes on behind it]"
        )
    if cut and not text.endswith("\n"):
        # The cut fell into a line: it is shown in part, and the next call begins with it.
        return f"\n[lines {start}-{last} of {known}, line {last} cut; go on with start_line={last}]"
    if start == 1 and last == total and not open_ended:
        return ""
    more = f"; go on with start_line={last + 1}" if open_ended or last < total else ""
    return f"{'' if text.endswith(chr(10)) else chr(10)}[lines {start}-{last} of {known}{more}]"


def _list(jail: Jail, path: str) -> str:
    found = map(_entry_line, jail.listdir(path))
    return _lines(found, MAX_ENTRIES, "entries", "the directory is empty, or nothing in it may be read")


def _entry_line(entry: Entry) -> str:
    ends = {"directory": "/", "file": f" ({entry.size} bytes)"}
    return _shown(entry.name) + ends.get(entry.kind, f" ({entry.kind})")


def _any_depth(pattern: str) -> str:
    """Let a pattern without a slash match at any depth, as models expect of ``*.py``."""
    return pattern if not pattern or "/" in pattern.rstrip("/") else f"**/{pattern}"


def _search(jail: Jail, pattern: str, path: str) -> str:
    found = iter(jail.glob(_any_depth(pattern), path))
    return _lines(map(_shown, found), MAX_ENTRIES, "paths", "nothing matches")


def _grep(jail: Jail, pattern: str, path: str, file_pattern: str | None, *, ignore_case: bool) -> str:
    glob = None if file_pattern is None else _any_depth(file_pattern)
    hits = jail.grep(pattern, path, glob=glob, ignore_case=ignore_case, max_hits=MAX_HITS + 1)
    found = (f"{_shown(hit.path)}:{hit.line}: {_around(hit.text, hit.column)}" for hit in hits)
    return _lines(found, MAX_HITS, "hits", "no hits")


def _around(text: str, column: int) -> str:
    """Cut a long line to what stands around the hit."""
    if len(text) <= MAX_HIT_CHARACTERS:
        return text
    if column >= len(text):
        # The jail cuts a very long line at its end: what was found is not in it.
        return f"{text[: MAX_HIT_CHARACTERS // 3]}… [the line is long: the hit is at column {column}]"
    begin = max(0, column - MAX_HIT_CHARACTERS // 3)
    end = begin + MAX_HIT_CHARACTERS
    return f"{'…' if begin else ''}{text[begin:end]}{'…' if end < len(text) else ''}"


def _kept(saved: TrashItem | None) -> str:
    """Say where the old content is."""
    return (
        ""
        if saved is None
        else f' The old version is in the trash: restore_file("{saved.id}") brings it back.'
    )


def _write(jail: Jail, path: str, text: str, *, append: bool) -> str:
    change: Change = (jail.append_text if append else jail.write_text)(path, text, parents=True)
    done = "Added" if append else "Wrote"
    return f"{done} {len(text)} characters to {_shown(change.path)}.{_kept(change.saved)}"


def _edit(jail: Jail, path: str, old: str, new: str, count: int) -> str:
    change = jail.edit(path, old, new, count=count)
    diff = change.diff or ""
    if len(diff) > MAX_CHARACTERS:
        diff = f"{diff[:MAX_CHARACTERS]}\n[the difference is longer and cut here]"
    return f"Edited {_shown(change.path)}.{_kept(change.saved)}\n{diff}"


def _move(jail: Jail, source: str, destination: str) -> str:
    change = jail.move(source, destination)
    return f"Moved {_shown(change.path)} to {_shown(change.to or destination)}."


def _copy(jail: Jail, source: str, destination: str) -> str:
    change = jail.copy(source, destination)
    return f"Copied {_shown(change.path)} to {_shown(change.to or destination)}."


def _mkdir(jail: Jail, path: str) -> str:
    change = jail.mkdir(path, parents=True, exist_ok=True)
    return f"The directory {_shown(change.path)} is there."


def _delete(jail: Jail, path: str) -> str:
    change = jail.delete(path)
    back = "" if change.saved is None else f' restore_file("{change.saved.id}") brings it back.'
    return f"Deleted {_shown(change.path)}. It is in the trash.{back}"


def _restore(jail: Jail, trash_id: str, to: str | None) -> str:
    # Another program may have trashed what this policy hides: show and restore only what may be read.
    items = [item for item in jail.trash.items() if item.path and jail.check("read", item.path)]
    for item in items:
        if item.id == trash_id:
            # Nothing is lost: what stands there goes to the trash. Something deleted asks first (by failing).
            old_version = to is None and item.why != "deleted"
            back = jail.trash.restore(item.id, to=to, overwrite=old_version)
            return f"Restored {_shown(back)}."
    listed = (
        f"{item.id}  {_shown(item.path)}  ({item.why} {item.deleted_at:%Y-%m-%d %H:%M:%S}, {item.kind})"
        for item in items
    )
    head = f"There is no {_shown(trash_id)} in the trash. " if trash_id else ""
    return f"{head}In the trash, newest first:\n{_lines(listed, MAX_TRASH_ITEMS, 'items', 'nothing')}"
