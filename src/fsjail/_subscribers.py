"""Who is told of each record: in the order of the log, one record at a time."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsjail._record import Event

_MOST = 10_000  # records that wait for a slow callback; more are dropped, for the callback only
_LAST_SECONDS = 5.0  # how long closing waits for a callback that another thread is in


class Subscribers:
    """Callbacks, and the records that they have not seen yet.

    Whoever wrote a record calls them, outside of the log's locks. While one thread does, the others
    leave their records in the queue and go on, so a slow callback holds up one operation only.

    Attributes:
        dropped: how many records no callback saw, because too many waited.
    """

    def __init__(self) -> None:
        """Begin with nobody."""
        self.dropped = 0
        self._all: tuple[Callable[[Event], object], ...] = ()
        self._closing: tuple[Callable[[], object], ...] = ()
        self._failed: set[int] = set()
        self.fresh()

    def fresh(self) -> None:
        """Set what is this process's own; runs again in a forked child, where the queue is the parent's."""
        self._due: deque[Event] = deque()
        self._telling = threading.Lock()
        self._inside = threading.local()

    def __bool__(self) -> bool:
        """Tell whether there is anybody."""
        return bool(self._all)

    def add(
        self, callback: Callable[[Event], object], closing: Callable[[], object] | None
    ) -> Callable[[], None]:
        """Add somebody; gives the function that takes him out again."""
        self._all = (*self._all, callback)
        if closing is not None:
            self._closing = (*self._closing, closing)

        def unsubscribe() -> None:
            self._all = tuple(one for one in self._all if one is not callback)
            if closing is not None:
                self._closing = tuple(one for one in self._closing if one is not closing)

        return unsubscribe

    def put(self, event: Event) -> None:
        """Note a record for them; not one that a callback made itself, which would never end."""
        if getattr(self._inside, "now", False):
            return
        if len(self._due) < _MOST:
            self._due.append(event)
        else:
            self.dropped += 1

    def tell(self) -> None:
        """Call them with what waits, unless another thread is at it."""
        while self._due and self._telling.acquire(blocking=False):
            self._inside.now = True
            try:
                while self._due:
                    event = self._due.popleft()
                    for callback in self._all:
                        self._guarded(callback, event)
            finally:
                self._inside.now = False
                self._telling.release()

    def close(self) -> None:
        """Tell the rest, then call what was to be called at the end; a second call does nothing."""
        self.tell()
        # Perhaps another thread is inside the last one; if it is this thread, waiting would be for itself.
        if not getattr(self._inside, "now", False) and self._telling.acquire(timeout=_LAST_SECONDS):
            self._telling.release()
        closing, self._closing, self._all = self._closing, (), ()
        for call in closing:
            self._guarded(call)

    def _guarded(self, call: Callable[..., object], *event: Event) -> None:
        try:
            call(*event)
        except Exception as error:  # noqa: BLE001 - somebody's code; the operation it was told of is done
            if id(call) not in self._failed:
                self._failed.add(id(call))
                import logging  # noqa: PLC0415 - imported when needed: start-up time

                logging.getLogger("fsjail").warning(
                    "a subscriber of the audit log failed (told once): %s: %s", type(error).__name__, error
                )
