"""What the policy says of a name on the disk: as asked, at each link, as resolved, and beneath."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fsjail._errors import AccessDenied, OutOfBounds
from fsjail._policy import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fsjail._names import Request
    from fsjail._policy import Policy
    from fsjail._root import OnName, Root, Target

# What each end of an operation asks of the policy. AppArmor asks the same of a rename's source.
ACCESS: dict[tuple[str, int], tuple[str, ...]] = {
    ("read", 0): ("read",),
    ("list", 0): ("list",),
    ("write", 0): ("write",),
    ("edit", 0): ("read", "write"),
    ("mkdir", 0): ("write",),
    ("delete", 0): ("write",),
    ("copy", 0): ("read",),
    ("copy", 1): ("write",),
    ("move", 0): ("read", "write"),
    ("move", 1): ("write",),
    # Not operations of their own: metadata of a directory that is only passed through, and the
    # missing parents of a file that may be written.
    ("stat", 0): ("stat",),
    ("parent", 0): ("parent",),
}
_OP = {"stat": "read", "parent": "mkdir"}


class Judge:
    """Asks the policy about names, and knows the jail's own inodes.

    Args:
        policy: the rules.
        own: gives device and inode of the jail's own folders, which no name may reach.
    """

    def __init__(self, policy: Policy, own: Callable[[], frozenset[tuple[int, int]]]) -> None:
        self.policy = policy
        self._own = own

    def verdict(self, access: str, name: str, is_dir: bool | None) -> Verdict:
        """The policy's answer for one name; "list", "stat" and "parent" include passing through."""
        policy = self.policy
        if access in {"read", "write"}:
            return policy.judge(access, name, is_dir)
        plain = "write" if access == "parent" else "read"
        verdict = policy.judge(plain, name, is_dir)
        if verdict.allowed or not verdict.why.startswith(("read.allow", "write.allow")):
            return verdict
        # A directory on the way to something allowed can be passed; listing shows only the way.
        # Only what is a directory: a name that is refused must answer alike, there or not.
        passes = access == "parent" or is_dir is True
        if passes and (name == "." or policy.may_contain(name, plain)):
            return Verdict(allowed=True, why="filtered", rule=None)
        return verdict

    def refuse(self, op: str, name: str, verdict: Verdict, *, on: str | None = None) -> AccessDenied:
        """Make the error for a negative answer; ``on`` is the name beneath that decided."""
        return AccessDenied.of(self.policy.decision(_OP.get(op, op), name, verdict, below=on))

    def early(self, op: str, end: int, request: Request) -> bool:
        """Refuse, before the disk is touched, whatever no type of file could save.

        So a refused name gets the same answer whether it exists or not.

        Returns:
            whether the name as asked for is allowed whatever has it: then nothing is left to ask
            of it unless a link leads elsewhere.
        """
        if request.name == "." and (op in {"delete", "move"} or end == 1):
            raise jail_refusal(self.policy, op, request.asked, "jail: root")
        for name in request.passed:
            self._denied(op, name)
        if request.name is None:
            return False  # it climbs above the root: the walk says so
        sure = True
        as_dir = True if op in {"mkdir", "parent"} else None
        for access in ACCESS[op, end]:
            verdict = self.verdict(access, request.name, as_dir)
            if verdict.allowed:
                sure = sure and verdict.why != "filtered"
                continue
            if as_dir is None and self._could_allow(access, request.name):
                sure = False  # a rule for directories only: what is there decides
                continue
            raise self.refuse(op, request.name, verdict)
        return sure

    def missing(self, op: str, end: int, request: Request) -> None:
        """Refuse a name that could not be reached where one that is there would have been refused."""
        as_dir = True if op in {"mkdir", "parent"} else None
        for access in ACCESS[op, end]:
            if request.name is not None:
                verdict = self.verdict(access, request.name, as_dir)
                if not verdict.allowed:
                    raise self.refuse(op, request.name, verdict)

    def hops(self, op: str, end: int) -> OnName:
        """A callback for each further name that a link brings up."""

        def on_name(name: str) -> None:
            for access in ACCESS[op, end]:
                verdict = self.verdict(access, name, None)
                if not verdict.allowed and (_is_deny(verdict) or not self._could_allow(access, name)):
                    raise self.refuse(op, name, verdict)

        return on_name

    def final(self, op: str, end: int, request: Request, target: Target, kind: bool | None) -> None:
        """Judge the resolved name by what is really there."""
        asked = request.name or target.name
        for access in ACCESS[op, end]:
            if asked != target.name:  # reached through a link: that counts as file and as directory
                verdict = self.verdict(access, asked, None)
                if not verdict.allowed:
                    raise self.refuse(op, asked, verdict)
            verdict = self.verdict(access, target.name, kind)
            if not verdict.allowed:
                raise self.refuse(op, asked, verdict)

    def not_own(self, op: str, request: Request, target: Target) -> None:
        """Refuse the jail's own folders under any name: a bind mount, another spelling."""
        own = self._own()
        if not own:
            return
        st = target.st
        if st is None or (st.st_dev, st.st_ino) not in own:
            if not target.leaf:
                return  # opened in one step; below the folders only their names lead
            st = os.fstat(target.parent)
            if (st.st_dev, st.st_ino) not in own:
                return
        raise self.refuse(op, request.asked, Verdict(allowed=False, why="builtin", rule=None))

    def old_name(self, name: str, kind: str) -> None:
        """Refuse to bring back what may not be read at the name that it had."""
        verdict = self.policy.judge("read", name, {"file": False, "directory": True}.get(kind))
        if not verdict.allowed:
            raise self.refuse("read", name, verdict)

    def _denied(self, op: str, name: str) -> None:
        """Refuse a directory that is only left again by "..", unless it leads to something allowed."""
        verdict = self.verdict("list", name, True)
        if not verdict.allowed and (_is_deny(verdict) or not self.verdict("parent", name, True).allowed):
            raise self.refuse(op, name, verdict)

    def _could_allow(self, access: str, name: str) -> bool:
        return self.verdict(access, name, True).allowed or self.verdict(access, name, False).allowed

    # ── trees ──────────────────────────────────────────────────────────────────────────────────

    def tree(
        self, op: str, names: Iterable[tuple[str, bool | None]], ends: dict[int, str], asked: str
    ) -> None:
        """Judge every name beneath a directory, at its old and at its new place.

        Args:
            op: the operation.
            names: relative names beneath, with whether each is a directory.
            ends: the directory's canonical name at each end of the operation.
            asked: the name for the message.

        Raises:
            PolicyDenied: names the first that is refused; the whole operation is.
        """
        wanted = [
            (access, "" if name == "." else f"{name}/")
            for end, name in ends.items()
            for access in ACCESS[op, end]
        ]
        for below, kind in names:
            for access, prefix in wanted:
                verdict = self.policy.judge(access, prefix + below, kind)
                if not verdict.allowed:
                    raise self.refuse(op, asked, verdict, on=prefix + below)


def beneath(root: Root, name: str) -> Iterator[tuple[str, bool | None]]:
    """Every name beneath a canonical directory, relative to it; links are names, not ways.

    Each directory is opened anew from the root without following a link, so one that is swapped
    for a link meanwhile raises instead of leading out.
    """
    pending = [""]
    while pending:
        below = pending.pop()
        fd = root.open_directory(f"{name}/{below}" if below else name)
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    path = f"{below}/{entry.name}" if below else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(path)
                        yield path, True
                    else:
                        yield path, None if entry.is_symlink() else False
        finally:
            os.close(fd)


def jail_refusal(policy: Policy, op: str, path: str, label: str) -> OutOfBounds:
    """The refusal of a name by the jail itself, before any rule: "jail: outside", "jail: root"."""
    decision = policy.decision(_OP.get(op, op), path, Verdict(allowed=False, why=label, rule=None))
    error = AccessDenied.of(decision)
    assert isinstance(error, OutOfBounds)  # noqa: S101 - the label begins with "jail:"
    return error


def _is_deny(verdict: Verdict) -> bool:
    return not verdict.why.startswith(("read.allow", "write.allow", "default"))
