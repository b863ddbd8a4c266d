"""File objects for ``Jail.open``: reading as it is, writing to staged content that close() commits."""

from __future__ import annotations

import io
import os
import warnings
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from fsjail._stage import Staged


class StagedRaw(io.FileIO):
    """The raw end of a staged file: commits on close unless it was discarded.

    Args:
        staged: the content; owned by this object from here on.
        mode: as for ``FileIO``.
        commit: gives the content its name.
        spend: called with the size that the file is about to have; raises over a limit.
    """

    def __init__(
        self, staged: Staged, mode: str, commit: Callable[[Staged], object], spend: Callable[[int], None]
    ) -> None:
        self._staged: Staged | None = staged
        self._commit = commit
        self._spend = spend
        self.discarded = False
        super().__init__(staged.fd, mode, closefd=False)

    def write(self, data: Any, /) -> int:
        """Write to the staged content."""
        try:
            self._spend(self.tell() + memoryview(data).nbytes)
            return super().write(data)
        except BaseException:
            # close() flushes once more and then closes us: half of it must not be committed.
            self.discarded = True
            raise

    def close(self) -> None:
        """Commit, once; a failing commit raises and leaves the old content in place."""
        staged, self._staged = self._staged, None
        super().close()
        if staged is not None:
            try:
                if not self.discarded:
                    self._commit(staged)
            finally:
                staged.close()


class _Discarding:
    """An exception in the ``with`` block, or being forgotten without close(), discards the content."""

    raw_end: StagedRaw

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.raw_end.discarded = True
        self.close()  # type: ignore[attr-defined]

    def __del__(self) -> None:
        raw = getattr(self, "raw_end", None)
        if raw is not None and not raw.closed:
            # Half a file must not replace a whole one because a reference was dropped.
            raw.discarded = True
            message = "a file opened for writing was never closed; discarded"
            warnings.warn(message, ResourceWarning, stacklevel=2)
            self.close()  # type: ignore[attr-defined]


class _Text(_Discarding, io.TextIOWrapper):
    pass


class _Writer(_Discarding, io.BufferedWriter):
    pass


class _Random(_Discarding, io.BufferedRandom):
    pass


def open_staged(raw: StagedRaw, mode: str, encoding: str | None, newline: str | None) -> IO[Any]:
    """Wrap a raw staged file as the built-in ``open`` would for the mode."""
    buffer_kind = _Random if "+" in mode else _Writer
    if "b" in mode:
        buffer: Any = buffer_kind(raw)
        buffer.raw_end = raw
        return buffer  # type: ignore[no-any-return]
    plain: Any = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
    text = _Text(plain, encoding=encoding or "utf-8", newline=newline)
    text.raw_end = raw
    return text


def open_plain(fd: int, mode: str, encoding: str | None, newline: str | None) -> IO[Any]:
    """Wrap a descriptor for reading; it is closed with the file object, or here on failure."""
    try:
        return os.fdopen(fd, mode, encoding=None if "b" in mode else encoding or "utf-8", newline=newline)
    except BaseException:
        os.close(fd)
        raise
