"""fsjail: a filesystem jail and file-access mediator for AI agents.

``Jail`` is the one door; ``Policy`` and ``Rules`` say what may pass; ``AccessDenied`` is the no.
"""

TYPE_CHECKING = False  # as in typing, whose import takes as long as all that is done here
if TYPE_CHECKING:
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

# Where each name is at home. A program imports what it uses, when it first uses it: a command that only
# reads a configuration does not pay for the trash.
_HOMES = {
    "_errors": (
        "AccessDenied",
        "ConfigError",
        "JailError",
        "LimitExceeded",
        "NotRegularFile",
        "OutOfBounds",
        "PolicyDenied",
        "TrashError",
    ),
    "_jail": ("Jail",),
    "_limits": ("Limits",),
    "_policy": ("Decision", "Policy", "Rules"),
    "_record": ("Event",),
    "_trashinfo": ("TrashItem",),
    "_values": ("Change", "Entry", "Hit"),
}


if not TYPE_CHECKING:  # else a type checker would believe in any name

    def __getattr__(name):  # noqa: ANN001, ANN202 - no type checker comes here
        for home, names in _HOMES.items():
            if name in names:
                from importlib import import_module  # noqa: PLC0415 - as all that is imported here

                found = globals()[name] = getattr(import_module(f"fsjail.{home}"), name)
                return found
        raise AttributeError(f"module 'fsjail' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
