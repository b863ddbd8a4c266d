"""Seeing the ways around the door: changes in the root that did not come through a jail."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Self

from fsjail._alarm import Alarms
from fsjail._patrol import Patrol
from fsjail._watched import BOUND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from fsjail._jail import Jail
    from fsjail._record import Event

    StrPath = str | os.PathLike[str]

__all__ = ["Watch"]

_FAILURES = 5  # in a row


class Watch:
    """Tells of changes that did not come through a jail; a context manager, to be used as often as wanted.

    Each finding becomes a record of the layer ``watch`` in the jail's log, and ``on_event`` is called with
    it, in a thread of the watch. ``event.extra["kind"]`` says what it is:

    ==================  ==========================================================================
    ``denied change``   a name that a rule denies; ``why`` and ``rule`` say which
    ``link``            a new symbolic link that leads out of the root (``to``), also into nothing
    ``hard link``       a file with more names (``links``) than are known inside (``inside``)
    ``unexplained``     any other change that no record explains
    ``tripwire``        a change at or beneath one of the tripwires
    ``trash``           a kept item that is gone without a restore or purge, or was changed
    ``root``            the root's own path was moved, replaced or deleted
    ``gap``             notices were lost, or no watch is left: everything is looked at again, and
                        what is found so has ``looked``
    ``polling``         there are no notices here (``reason``): everything is looked at again and again
    ``blind``           what cannot be seen (``reason``)
    ==================  ==========================================================================

    What any jail on the same log does, in this process or another, is never told. Floods are counted in
    ``extra["more"]``.

    Args:
        jail: whose root is watched; open as long as the watch runs.
        on_event: called with each event; what it raises is warned of once and ends nothing.
        tripwires: files and folders outside the root, ``~`` is expanded. What is not there is waited for.
        unexplained: whether every change that no record explains is told; the other kinds always are.
        polling: True looks again and again; False raises where there are no notices; None decides, by the
            file system and by trying, and says what it has decided.

    Raises:
        ValueError: a tripwire lies inside the root.

    Attributes:
        polling: whether this run does without notices; None while it does not run.

    Does not stop: anything; it tells what was done. It sees changes only: no reading, no failed attempt,
    nothing outside but the tripwires, and not who did it. It does not see a file that came and went in a
    directory that is not watched yet; writing through a memory map, before the file is closed or looked at
    again; what happens between two looks while it polls, or in a gap; what a name held for the instant before
    the jail itself changed it; the deletion of a name within a millisecond or so of the jail's own deletion
    of it; changes beneath a directory in the moment in which the jail copies, moves or restores it. A program
    without the jail's log, such as a jail with another ``state`` folder, counts as somebody else. Whoever may
    write the log's folder can explain away what he likes. See also `_trashwatch` for what is not seen in
    ``.fsjail``.
    """

    def __init__(
        self,
        jail: Jail,
        on_event: Callable[[Event], object] | None = None,
        *,
        tripwires: Iterable[StrPath] = (),
        unexplained: bool = True,
        polling: bool | None = None,
    ) -> None:
        self._jail = jail
        self._on_event = on_event
        self._tripwires = [os.path.abspath(os.path.expanduser(path)) for path in tripwires]
        for path in self._tripwires:
            if f"{os.path.realpath(path)}/".startswith(jail.root.rstrip("/") + "/"):
                raise ValueError("a tripwire lies outside the root; inside it all changes are watched")
        self._unexplained = unexplained
        self._wanted = polling
        self._bound = BOUND
        self._patrol: Patrol | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._pid = 0
        self.polling: bool | None = None

    def __enter__(self) -> Self:
        """Begin; everything that happens from the return on is seen.

        Raises:
            OSError: the root cannot be listed; or there are no notices here and ``polling`` is False.
            RuntimeError: it runs already.
        """
        if self._thread is not None:
            raise RuntimeError("the watch runs already")
        jail = self._jail
        self._patrol = Patrol(
            jail._root,  # noqa: SLF001 - the watch is a part of the jail, in modules of its own
            jail.policy,
            Alarms(jail.audit, self._on_event),
            log=jail.audit.folder,
            trash=jail._store._location,  # noqa: SLF001 - as above
            tripwires=self._tripwires,
            unexplained=self._unexplained,
            polling=self._wanted,
            bound=self._bound,
        )
        self.polling, self._pid = self._patrol.polling, os.getpid()
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="fsjail watch", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell what has happened until now, and end."""
        thread, patrol = self._thread, self._patrol
        if thread is None or patrol is None or thread is threading.current_thread():
            return  # the last one: on_event, called by the very thread; it cannot wait for itself
        self._thread = self._patrol = self.polling = None
        if self._pid != os.getpid():
            return  # a forked child: thread and watches are its parent's
        self._stopping.set()
        if patrol.reader is not None:
            patrol.reader.wake()
        thread.join()

    def _run(self) -> None:
        patrol, failures = self._patrol, 0
        assert patrol is not None  # noqa: S101 - set by __enter__
        try:
            while not self._stopping.is_set():
                try:
                    patrol.turn()
                    patrol.wait()
                    failures = 0
                except Exception as error:
                    failures += 1
                    if failures == _FAILURES:
                        raise
                    patrol.failed(error)
            patrol.finish()
        except Exception as error:  # noqa: BLE001 - the thread's last words, instead of silence
            patrol.failed(error, ends=True)
        finally:
            patrol.close()
