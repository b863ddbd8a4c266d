"""Of what kind a finding in the root is: against a rule, a link that leads outside, or only unexplained."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from fsjail._errors import AccessDenied, Moved, OutOfBounds

if TYPE_CHECKING:
    from fsjail._alarm import Alarms
    from fsjail._doubts import Found
    from fsjail._policy import Policy
    from fsjail._root import Root
    from fsjail._seen import Seen
    from fsjail._trashwatch import TrashWatch
    from fsjail._tree import Tree


class Kinds:
    """Sorts findings and tells them.

    Args:
        root: for where a link leads.
        policy: the rules.
        alarms: where findings go.
        tree: what is known of the root.
        trash: what is known of the kept items.
        unexplained: whether what is of no other kind is told.
    """

    def __init__(
        self, root: Root, policy: Policy, alarms: Alarms, tree: Tree, trash: TrashWatch, *, unexplained: bool
    ) -> None:
        self._root = root
        self._policy = policy
        self._alarms = alarms
        self._tree = tree
        self._trash = trash
        self._unexplained = unexplained

    def tell(self, findings: list[Found]) -> None:
        """Tell each; one that is of two kinds is told twice."""
        inside: dict[int, int] | None = None
        for found in findings:
            now = found.now
            if now is not None and now.is_file and now.links > 1 and inside is None:
                inside = self._tree.inodes()  # once for all: a copy made of hard links has thousands
                for kept in self._trash.names.values():
                    inside[kept.ino] = inside.get(kept.ino, 0) + 1
            self._tell(found, inside or {})

    def _tell(self, found: Found, inside: dict[int, int]) -> None:
        path, op, now, was = found.path, found.op, found.now, found.was
        extra: dict[str, Any] = {"passing": True} if found.passing else {}
        if found.looked:
            extra["looked"] = True
        new = now is not None and (was is None or was.ino != now.ino)
        told = op == "link"  # by itself, another name inside is no change of this one
        if now is not None and new and now.is_link:
            target = self._outside(path)
            if target is not None:
                self._alarms.tell("link", op, path, to=target, extra=extra)
                told = True
        elif now is not None and now.is_file and now.links > 1 and (new or op == "link"):
            known = inside.get(now.ino, 0)
            if known < now.links:
                more = {**extra, "links": now.links, "inside": known}
                self._alarms.tell("hard link", op, path, extra=more)
                told = True
        if op != "link":
            told = self._denied(op, path, now or was, extra) or told
        folder = self._tree.carried.pop(path, None)
        if folder is not None:  # it came or went whole: of the names beneath there was no notice
            for name, seen in folder.below():
                self._denied(op, f"{path}/{name}", seen, extra)
        if self._unexplained and not told:
            self._alarms.tell("unexplained", op, path, extra=extra)

    def _denied(self, op: str, path: str, seen: Seen | None, extra: dict[str, Any]) -> bool:
        """Tell it if a rule denies writing the name; that no rule allows it is no denial."""
        kind = None if seen is None or seen.is_link else seen.is_dir
        verdict = self._policy.judge("write", path, kind)
        if verdict.allowed or verdict.why.startswith(("read.allow", "write.allow", "default")):
            return False
        self._alarms.tell("denied change", op, path, why=verdict.why, rule=verdict.rule, extra=extra)
        return True

    def _outside(self, path: str) -> str | None:
        """Give what a link says, if that leads out of the root; also if nothing is there."""
        try:
            with self._root.resolve(self._root.parse(path), follow=False) as link:
                text = os.readlink(link.leaf, dir_fd=link.parent)
        except (OSError, AccessDenied, Moved):
            return None
        try:
            self._root.resolve(self._root.parse(path)).close()
        except OutOfBounds:
            return text
        except (OSError, Moved):
            return None
        return None
