"""fsjail: a filesystem jail and file-access mediator for AI agents.

``Jail`` is the one door; ``Policy`` and ``Rules`` say what may pass; ``AccessDenied`` is the no.
"""

from fsjail._audit import Event
from fsjail._errors import (
    AccessDenied,
    ConfigError,
    JailError,
    LimitExceeded,
    NotRegularFile,
    OutOfBounds,
    PolicyDenied,
    TrashError,
)
from fsjail._jail import Jail
from fsjail._limits import Limits
from fsjail._policy import Decision, Policy, Rules
from fsjail._trashinfo import TrashItem
from fsjail._values import Change, Entry, Hit

__version__ = "0.1.0"

__all__ = [
    "AccessDenied",
    "Change",
    "ConfigError",
    "Decision",
    "Entry",
    "Event",
    "Hit",
    "Jail",
    "JailError",
    "LimitExceeded",
    "Limits",
    "NotRegularFile",
    "OutOfBounds",
    "Policy",
    "PolicyDenied",
    "Rules",
    "TrashError",
    "TrashItem",
]
