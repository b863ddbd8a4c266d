"""What the groups of operations need of the jail that they belong to."""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

from fsjail._errors import LimitExceeded

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from fsjail._judge import Judge
    from fsjail._limits import Limits
    from fsjail._policy import Decision, Policy
    from fsjail._root import Root, Target
    from fsjail._trash import TrashStore

    StrPath = str | os.PathLike[str]

T = TypeVar("T")


class Door(ABC):
    """The parts of a ``Jail`` that its operations use; each goes through ``_mediate``."""

    policy: Policy
    limits: Limits
    actor: str | None
    _root: Root
    _judge: Judge
    _store: TrashStore
    _written: int

    @abstractmethod
    def check(self, op: str, path: StrPath, to: StrPath | None = None) -> Decision:
        """See ``Jail.check``."""

    @abstractmethod
    def is_dir(self, path: StrPath) -> bool:
        """See ``Reads.is_dir``."""

    @abstractmethod
    def _mediate(
        self,
        op: str,
        path: StrPath,
        act: Callable[..., T],
        *,
        to: StrPath | None = None,
        judged: str | None = None,
        opened: bool = False,
        follow: bool = True,
        quiet: bool = False,
        extra: dict[str, Any] | None = None,
    ) -> T:
        """See ``Jail._mediate``."""

    @abstractmethod
    def _outside(self, op: str, asked: str) -> Exception:
        """See ``Jail._outside``."""

    @abstractmethod
    def _recorded(self, op: str, asked: str, result: T, extra: dict[str, Any] | None) -> T:
        """See ``Jail._recorded``."""

    @abstractmethod
    def _judge_tree(self, op: str, target: Target, end: Target | None) -> None:
        """See ``Jail._judge_tree``."""

    def _spend_one(self, size: int) -> None:
        """Refuse content over the limit for one file."""
        most = self.limits.max_write_bytes
        if most is not None and size > most:
            raise LimitExceeded(errno.EFBIG, f"{size} bytes are over the limit of {most} bytes for one file")

    def _afford(self, size: int) -> None:
        """Refuse, before anything is changed, what is over a limit."""
        self._spend_one(size)
        most = self.limits.max_total_bytes
        if most is not None and self._written + size > most:
            raise LimitExceeded(errno.EDQUOT, f"the jail may write {most} bytes in all; they are used up")

    def _spend(self, size: int) -> None:
        """Count what is written over the jail's life; refuses like :meth:`_afford`."""
        self._afford(size)
        self._written += size
