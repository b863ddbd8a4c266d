"""File objects for ``Jail.open``: reading as it is, writing to staged content that close() commits."""

from __future__ import annotations

import io
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
        # Set by a close() that means it: half a file must not replace a whole one because a reference
        # was dropped, a wrapper could not be made, or a flush failed.
        self.kept = self._failed = False
        super().__init__(staged.fd, mode, closefd=False)

    def write(self, data: Any, /) -> int:
        """Write to the staged content."""
        try:
            self._spend(self.tell() + memoryview(data).nbytes)
            return super().write(data)
        except BaseException:
            self._failed = True
            raise

    def close(self) -> None:
        """Commit, once; a failing commit raises and leaves the old content in place."""
        staged, self._staged = self._staged, None
        super().close()
        if staged is not None:
            try:
                if self.kept and not self._failed:
                    self._commit(staged)
            finally:
                staged.close()


class _Discarding:
    """Commits on close(); an exception in the ``with`` block, or being forgotten, discards the content."""

    raw_end: StagedRaw

    def close(self) -> None:
        if not self.raw_end.closed:
            self.raw_end.kept = True
        super().close()  # type: ignore[misc]  # of the stream class that this is mixed into

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            super().close()  # type: ignore[misc]  # as above

    def __del__(self) -> None:
        raw = getattr(self, "raw_end", None)
        if raw is not None and not raw.closed:
            message = "a file opened for writing was never closed; discarded"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)
            super().close()  # type: ignore[misc]  # as above


class _Text(_Discarding, io.TextIOWrapper):
    pass


class _Writer(_Discarding, io.BufferedWriter):
    pass


class _Random(_Discarding, io.BufferedRandom):
    pass


def open_staged(raw: StagedRaw, mode: str, encoding: str | None, newline: str | None) -> IO[Any]:
    """Wrap a raw staged file as the built-in ``open`` would for the mode.

    Raises:
        LookupError, ValueError: no such encoding or newline; the content is discarded.
    """
    try:
        if "b" in mode:
            if encoding is not None or newline is not None:
                message = "binary mode takes no encoding and no newline argument"
                raise ValueError(message)
            stream: Any = (_Random if "+" in mode else _Writer)(raw)
        else:
            plain: Any = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
            stream = _Text(plain, encoding=encoding or "utf-8", newline=newline)
    except BaseException:
        raw.close()
        raise
    stream.raw_end = raw
    return stream  # type: ignore[no-any-return]  # one of the three above


def open_plain(fd: int, mode: str, encoding: str | None, newline: str | None) -> IO[Any]:
    """Wrap a descriptor for reading; it is closed with the file object, or here on failure."""
    raw = io.FileIO(fd, "r")
    try:
        buffer = io.BufferedReader(raw)
        if "b" not in mode:
            return io.TextIOWrapper(buffer, encoding=encoding or "utf-8", newline=newline)
        if encoding is not None or newline is not None:
            message = "binary mode takes no encoding and no newline argument"
            raise ValueError(message)
    except BaseException:
        raw.close()
        raise
    return buffer
