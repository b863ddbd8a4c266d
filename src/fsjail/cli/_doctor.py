"""``fsjail doctor``: proves what works here, and the ``[[expect]]`` cases of the configuration."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from fsjail._errors import JailError
from fsjail.cli import _probes, _say
from fsjail.cli._open import jail_at, settings_at
from fsjail.cli._probes import Ability
from fsjail.cli._survey import OWN

if TYPE_CHECKING:
    from fsjail._jail import Jail
    from fsjail.config import Expect, Settings


@dataclass(frozen=True, slots=True)
class Proof:
    """One ``[[expect]]`` case and what the jail answered."""

    operation: str
    path: str
    to: str | None
    expected: bool
    allowed: bool | None
    ok: bool
    sentence: str
    file: str
    line: int | None


def doctor(root: str | None, *, as_json: bool) -> int:
    """Run every probe and every case.

    Returns:
        0 if all that is needed works and every case holds, else 1.
    """
    settings = settings_at(root)
    with jail_at(root) as jail:
        found = [*_probes.abilities(), *_of_root(jail, settings), *_of_log(jail)]
        warnings = [*(str(warning) for warning in jail.policy.warnings), *_of_place(str(jail.root), settings)]
        proofs = [_proof(jail, case) for case in settings.expects]
    ok = all(ability.works or not ability.needed for ability in found) and all(proof.ok for proof in proofs)
    if as_json:
        _say.emit(
            {
                "ok": ok,
                "root": str(jail.root),
                "sources": list(settings.sources),
                "probes": [asdict(ability) for ability in found],
                "warnings": warnings,
                "expects": [asdict(proof) for proof in proofs],
            }
        )
    else:
        _print(found, warnings, proofs, ok=ok)
    return 0 if ok else 1


def _of_root(jail: Jail, settings: Settings) -> list[Ability]:
    root = str(jail.root)
    try:
        with _probes.scratch(root) as folder:
            home = settings.trash_location or os.path.join(root, OWN)
            return [*_probes.of_folder(folder), _probes.same_device(folder, home)]
    except OSError as error:
        note = f"{error.strerror}: you cannot write in the root, so neither can an agent that you start"
        return [Ability("changes in the root", works=False, needed=False, note=note)]


def _of_log(jail: Jail) -> list[Ability]:
    folder = str(jail.audit.folder)
    there = folder
    while not os.path.isdir(there) and os.path.dirname(there) != there:
        there = os.path.dirname(there)
    writable = os.access(there, os.W_OK | os.X_OK)
    note = folder if writable else f"{there} cannot be written: denials would not be logged"
    found = [Ability("log can be written", works=writable, needed=True, note=note)]
    try:
        proof = jail.audit.verify()
    except OSError as error:
        return [*found, Ability("log is whole", works=False, needed=True, note=error.strerror or str(error))]
    note = _say.number(proof.records, "record") if proof.ok else proof.problems[0]
    return [*found, Ability("log is whole", works=proof.ok, needed=True, note=note)]


def _of_place(root: str, settings: Settings) -> list[str]:
    """Warn of a root that is more than a project."""
    warnings = []
    if root == "/":
        warnings.append("the root is the whole file system; an agent needs one project")
    elif os.path.realpath(root) == os.path.realpath(os.path.expanduser("~")):
        warnings.append("the root is your home folder; an agent needs one project")
    if not settings.sources:
        warnings.append("there is no configuration, so the defaults hold; `fsjail init` writes one")
    return warnings


def _proof(jail: Jail, case: Expect) -> Proof:
    allowed: bool | None
    try:
        decision = jail.check(case.op, case.path, case.to)
        allowed, sentence = decision.allowed, str(decision)
    except (JailError, OSError) as error:
        allowed, sentence = None, str(error)
    return Proof(
        operation=case.op,
        path=case.path,
        to=case.to,
        expected=case.allowed,
        allowed=allowed,
        ok=allowed is case.allowed,
        sentence=sentence,
        file=case.file,
        line=case.line,
    )


def _print(found: list[Ability], warnings: list[str], proofs: list[Proof], *, ok: bool) -> None:
    paint = _say.painter()
    good, weak, bad = paint("green", "ok  "), paint("yellow", "weak"), paint("red", "FAIL")
    for ability in found:
        word = good if ability.works else bad if ability.needed else weak
        _say.say(f"{word}  {ability.name:<26} {_say.safe(ability.note)}")
    for warning in warnings:
        _say.say(f"{paint('yellow', 'warn')}  {_say.safe(warning)}")
    for proof in proofs:
        to = "" if proof.to is None else f" -> {proof.to}"
        case = _say.safe(f"{proof.operation} {proof.path}{to}")
        wanted = "allowed" if proof.expected else "denied"
        _say.say(
            f"{good if proof.ok else bad}  expect {case}: {wanted}" + ("" if proof.ok else _instead(proof))
        )
    _say.say()
    _say.say("All that is needed works." if ok else "Something that is needed does not work.")


def _instead(proof: Proof) -> str:
    line = "" if proof.line is None else f":{proof.line}"
    return f", but: {_say.safe(proof.sentence)} ({_say.safe(proof.file)}{line})"
