"""Events as File System Activity (class 1001) of the Open Cybersecurity Schema Framework, version 1.4.0.

https://schema.ocsf.io/1.4.0/classes/file_activity with the profile Security Control, which says what a
policy decided. What has no place there stands under ``unmapped``.
"""

from __future__ import annotations

import os
import posixpath
import shlex
from typing import TYPE_CHECKING, Any, Final

from fsjail import __version__
from fsjail.exporters._words import code, microseconds, plain, sentence

if TYPE_CHECKING:
    from fsjail._record import Event

SCHEMA_VERSION: Final = "1.4.0"

_CLASS, _CATEGORY = 1001, 1
_ACTIVITIES: Final = {
    0: "Unknown",
    1: "Create",
    2: "Read",
    3: "Update",
    4: "Delete",
    5: "Rename",
    6: "Set Attributes",
    8: "Get Attributes",
    14: "Open",
    99: "Other",
}
_ACTIVITY: Final = {
    "read": 2,
    "list": 2,
    "walk": 2,
    "glob": 2,
    "grep": 2,
    "stat": 8,
    "open": 14,
    "write": 3,
    "edit": 3,
    "append": 3,
    "mkdir": 1,
    "create": 1,
    "link": 1,
    "copy": 1,
    "restore": 1,
    "delete": 4,
    "rmdir": 4,
    "purge": 4,
    "attributes": 6,
    "move": 5,
}
_FOLDER_OPS: Final = {"list", "walk", "glob", "mkdir"}
_FILE_OPS: Final = {"read", "write", "edit", "append"}
_SEVERITY: Final = {"allow": (1, "Informational"), "deny": (3, "Medium"), "error": (2, "Low")}
_ACTION: Final = {  # of the profile Security Control: action, disposition
    "allow": ((1, "Allowed"), (1, "Allowed")),
    "deny": ((2, "Denied"), (2, "Blocked")),
    "error": ((0, "Unknown"), (0, "Unknown")),
}
_SEEN = ((1, "Allowed"), (15, "Detected"))  # what is seen from beside the door has happened


def ocsf_event(event: Event, *, host: str | None = None) -> dict[str, Any]:
    """Write an event as OCSF File System Activity.

    Args:
        event: an event of the log.
        host: the name of the machine that it is from; this machine's if left out.

    Returns:
        What `json` can write; every text is valid Unicode.
    """
    activity = _activity(event)
    activity_name = event.op if activity == 99 else _ACTIVITIES[activity]  # noqa: PLR2004 - "Other" names itself
    severity = (4, "High") if event.layer == "audit" else _SEVERITY.get(event.decision, (0, "Unknown"))
    action, disposition = _ACTION.get(event.decision, _ACTION["error"])
    if event.layer == "watch" and event.decision != "allow":
        action, disposition = _SEEN
    moment = microseconds(event)
    ends = (event.to, event.path) if event.op == "copy" and event.to else (event.path, event.to)
    found: dict[str, Any] = {
        "activity_id": activity,
        "activity_name": activity_name,
        "category_uid": _CATEGORY,
        "category_name": "System Activity",
        "class_uid": _CLASS,
        "class_name": "File System Activity",
        "type_uid": _CLASS * 100 + activity,
        "type_name": f"File System Activity: {_ACTIVITIES[activity]}",
        "time": 0 if moment is None else moment // 1000,
        "severity_id": severity[0],
        "severity": severity[1],
        "status_id": 1 if event.decision == "allow" else 2,
        "status": "Success" if event.decision == "allow" else "Failure",
        "status_code": code(event),
        "status_detail": event.why,
        "action_id": action[0],
        "action": action[1],
        "disposition_id": disposition[0],
        "disposition": disposition[1],
        "message": sentence(event),
        "count": event.count,
        "actor": _actor(event),
        "device": {"hostname": host or os.uname().nodename, "type_id": 0, "type": "Unknown"},
        "file": _file(event, ends[0]),
        "file_result": _file(event, event.to) if event.op == "move" and event.to else None,
        "policy": _policy(event),
        "metadata": {
            "version": SCHEMA_VERSION,
            "product": {"name": "fsjail", "vendor_name": "fsjail", "version": __version__},
            "profiles": ["security_control"],
            "log_name": "audit",
            "uid": f"{event.run}-{event.seq}",
            "sequence": event.seq,
            "original_time": event.time,
            "correlation_uid": event.run,
        },
        "unmapped": {
            "layer": event.layer,
            "op": event.op,
            "path": event.path,
            "to": event.to,
            "resolved": event.resolved,
            "decision": event.decision,
            "rule": event.rule,
            "errno": event.errno,
            "tool": event.actor.get("tool"),
            "call_id": event.actor.get("call_id"),
            "trash_id": event.trash_id,
            "extra": event.extra,
            "prev": event.prev,
            "hash": event.hash,
        },
    }
    cleaned: dict[str, Any] = _clean(found)
    return cleaned


def _activity(event: Event) -> int:
    if event.op == "write" and event.decision == "allow" and event.trash_id is None:
        return 1  # nothing was saved, so nothing was there
    return _ACTIVITY.get(event.op, 99)


def _file(event: Event, path: str) -> dict[str, Any]:
    folder = event.op in _FOLDER_OPS or path.endswith("/")
    kind = (2, "Folder") if folder else (1, "Regular File") if event.op in _FILE_OPS else (0, "Unknown")
    name = posixpath.basename(path.rstrip("/")) or path or "."
    return {"name": name, "path": path, "type_id": kind[0], "type": kind[1]}


def _actor(event: Event) -> dict[str, Any]:
    who = event.actor
    exe = who.get("exe")
    process: dict[str, Any] = {"pid": who.get("pid"), "uid": event.run}
    if isinstance(exe, str) and exe:
        name = posixpath.basename(exe) or exe
        process |= {"name": name, "file": {"name": name, "path": exe, "type_id": 1, "type": "Regular File"}}
    if isinstance(argv := who.get("argv"), list) and argv:
        process["cmd_line"] = shlex.join(map(str, argv))
    return {"process": process, "app_name": who.get("name")}


def _policy(event: Event) -> dict[str, Any]:
    """Name the rule that decided, or the label where none did."""
    if event.rule is None:
        return {"uid": event.why}
    source, line = event.rule.get("source"), event.rule.get("line")
    place = f"{source}:{line}" if line is not None else str(source)
    return {"uid": event.why, "name": place, "desc": str(event.rule.get("pattern"))}


def _clean(value: Any) -> Any:
    """Leave out what is not known, and make every text valid."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, dict):
        return {plain(str(key)): _clean(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value
