"""The errors that fsjail raises of its own.

::

    JailError                       base, never raised itself
    ├── AccessDenied                PermissionError: the jail said no
    │   ├── OutOfBounds             EXDEV: the name leads outside the root, or is the root
    │   └── PolicyDenied            EACCES: a rule said no; carries .decision
    ├── InvalidName                 ValueError and OSError (EINVAL, ENAMETOOLONG): no file system name
    ├── NotRegularFile              OSError: a FIFO, socket or device
    ├── LimitExceeded               OSError (EFBIG, EDQUOT, ETIMEDOUT): a limit of the jail
    ├── TrashError                  OSError: an item cannot be kept, found or restored
    └── ConfigError                 ValueError: a configuration that cannot work; carries .file and .line

Ordinary failures stay what Python users know (FileNotFoundError, NotADirectoryError,
FileExistsError, IsADirectoryError, UnicodeDecodeError), with the caller's own path in
``.filename``. No message holds a path of the host.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fsjail._policy import Decision


class JailError(Exception):
    """Base of every error that fsjail raises of its own; never raised itself."""


class _JailOSError(JailError, OSError):
    """An ``OSError`` whose text is the sentence alone, without ``[Errno n]``.

    The constructor takes what ``OSError`` takes (errno, sentence, the caller's path), so that
    instances pickle as any ``OSError`` does.
    """

    def __str__(self) -> str:
        return str(self.strerror) if self.strerror is not None else super().__str__()


class AccessDenied(_JailOSError, PermissionError):
    """The jail refused the call; nothing was changed.

    Attributes:
        decision: the answer that refused, with its rule.
    """

    decision: Decision | None = None

    @classmethod
    def of(cls, decision: Decision, asked: str | None = None) -> AccessDenied:
        """Make the error for a negative decision.

        Args:
            decision: the answer.
            asked: the caller's own spelling of the path; the decision's path if left out.
        """
        outside = decision.why.startswith("jail:")
        kind: type[AccessDenied] = OutOfBounds if outside else PolicyDenied
        error = kind(
            errno.EXDEV if outside else errno.EACCES,
            str(decision),
            decision.path if asked is None else asked,
        )
        error.decision = decision
        return error


class OutOfBounds(AccessDenied):
    """The name leads outside the root, or is the root where it may not be (errno EXDEV)."""


class PolicyDenied(AccessDenied):
    """A rule of the policy refused (errno EACCES); ``.decision`` tells which."""


class InvalidName(_JailOSError, ValueError):
    """No name of a file: empty, NUL, over 4095 bytes, unencodable, or one that the call cannot use.

    Attributes:
        why: the label for the log.
    """

    why = "jail: invalid name"


class NotRegularFile(_JailOSError):
    """The name is a FIFO, a socket or a device; it was not opened for data."""


class LimitExceeded(_JailOSError):
    """A limit of the jail was reached (EFBIG, EDQUOT, ETIMEDOUT)."""


class TrashError(_JailOSError):
    """A trash item is unknown, damaged, or cannot be kept or restored; nothing was removed."""


class ConfigError(JailError, ValueError):
    """A configuration or rule that cannot work.

    Attributes:
        file: the file that holds it, or a label such as ``read.deny``.
        line: its line, counted from 1, where known.
    """

    def __init__(self, message: str, file: str | None = None, line: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.line = line

    def __str__(self) -> str:
        where = self.file or ""
        if self.line is not None:
            where = f"{where}:{self.line}" if where else f"line {self.line}"
        return f"{where}: {self.message}" if where else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.message, self.file, self.line))


class Moved(Exception):
    """A name changed between two looks at it; the caller resolves and judges again."""
