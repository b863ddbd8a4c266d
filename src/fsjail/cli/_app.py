"""The commands as typer sees them; the only import of typer, and nothing heavy beside it.

What a command does is imported when it runs: ``fsjail check`` is called by hooks and editors,
so every millisecond of start-up counts.
"""

# ruff: noqa: PLC0415 - what only one command needs is imported when that command runs

from __future__ import annotations

import os
import sys
from typing import Annotated, Any, Literal, get_args

import typer
from typer.core import TyperGroup

from fsjail._errors import AccessDenied, ConfigError, InvalidName, JailError
from fsjail.cli import READER_GONE, _say

Operation = Literal["read", "list", "write", "edit", "mkdir", "delete", "copy", "move"]
Preset = Literal["read-only", "workspace"]
Outcome = Literal["allow", "deny", "error"]
Format = Literal["text", "json", "ocsf"]

Root = Annotated[
    str | None,
    typer.Option(
        "--root",
        metavar="DIR",
        help="The jail's root, or a folder in it; else found from the current folder.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="From then on: 30m, 2h, 3d, or an ISO date and time."),
]
Actor = Annotated[str | None, typer.Option("--actor", metavar="NAME", help="Only what this agent did.")]


class Commands(TyperGroup):
    """A group that turns what may go wrong into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for.

        Raises:
            typer.Exit: with 1 for what was denied or not found, 2 for a wrong name or
                configuration, 141 if the reader of the output went away.
        """
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _say.let_go()
            raise typer.Exit(READER_GONE) from None
        except (JailError, OSError) as error:
            _say.complain(_sentence(error))
            raise typer.Exit(2 if isinstance(error, (ConfigError, InvalidName)) else 1) from None


def _sentence(error: Exception) -> str:
    """Write an error as one sentence for the owner of the jail."""
    if isinstance(error, AccessDenied) or not isinstance(error, OSError) or error.filename is None:
        return getattr(error, "strerror", None) or str(error)
    text = str(error) if isinstance(error, JailError) or not error.strerror else error.strerror
    name = os.fsdecode(error.filename)
    return text if name in text else f"{name}: {text}"


def _helping(argv: list[str]) -> bool:
    """Tell whether this call prints help on a terminal: rich costs 60 ms, so only that pays it."""
    asked = len(argv) == 0 or "--help" in argv or "-h" in argv
    return asked and sys.stdout.isatty() and not os.environ.get("NO_COLOR")


_STYLE: Any = {
    "cls": Commands,
    "rich_markup_mode": "rich" if _helping(sys.argv[1:]) else None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
app = typer.Typer(name="fsjail", **_STYLE)
trash = typer.Typer(name="trash", **_STYLE)
app.add_typer(trash)


def _show_version(wanted: bool) -> None:
    if wanted:
        from fsjail import __version__

        _say.say(f"fsjail {__version__}")
        raise typer.Exit


def _root_of(ctx: typer.Context, root: str | None) -> str | None:
    """Take ``--root`` from behind the command or, given there, from before it."""
    return root if root is not None else ctx.find_root().params.get("root")


@app.callback(invoke_without_command=True)
def fsjail(
    ctx: typer.Context,
    *,
    root: Root = None,  # noqa: ARG001 - the commands read it through the context
    version: Annotated[  # noqa: ARG001 - its callback answers
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version.")
    ] = False,
) -> None:
    """A jail for the file tools of AI agents: one root, rules, a trash, a log.

    Exit codes: 0 allowed or done, 1 denied or not found, 2 wrong use or configuration.
    """
    if ctx.invoked_subcommand is None:
        _say.say(ctx.get_help())


@app.command()
def init(
    ctx: typer.Context,
    *,
    preset: Annotated[
        Preset | None, typer.Option("--preset", help="What may be written; read-only if left out.")
    ] = None,
    write: Annotated[
        list[str] | None,
        typer.Option("--write", metavar="PATTERN", help="May be written; give it several times."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an fsjail.toml that is there.")] = False,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Write a first fsjail.toml. Tells what an agent may do from then on."""
    from fsjail.cli._init import init as work

    raise typer.Exit(work(_root_of(ctx, root), preset, write or [], force=force, as_json=as_json))


@app.command()
def inspect(ctx: typer.Context, *, root: Root = None, as_json: Json = False) -> None:
    """Show what an agent sees. Root, rules, counts, trash, last refusals, this machine."""
    from fsjail.cli._look import inspect as work

    raise typer.Exit(work(_root_of(ctx, root), as_json=as_json))


@app.command()
def check(
    ctx: typer.Context,
    operation: Annotated[Operation, typer.Argument(metavar="OPERATION", help="|".join(get_args(Operation)))],
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="Relative to the root, as an agent would say it.")
    ],
    *,
    to: Annotated[str | None, typer.Option("--to", metavar="DEST", help="Where a copy or move goes.")] = None,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Ask whether an operation would be allowed. Names the rule; nothing is done or logged."""
    from fsjail.cli._ask import check as work

    raise typer.Exit(work(_root_of(ctx, root), operation, path, to, as_json=as_json))


@app.command()
def tree(
    ctx: typer.Context,
    path: Annotated[str, typer.Argument(metavar="PATH", help="Where to begin, relative to the root.")] = ".",
    *,
    depth: Annotated[
        int | None, typer.Option("--depth", "-d", metavar="N", min=0, help="How many levels to go down.")
    ] = None,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Mark what an agent may do with each name. rw, r- (read), x- (pass through), -- (hidden)."""
    from fsjail.cli._look import tree as work

    raise typer.Exit(work(_root_of(ctx, root), path, depth, as_json=as_json))


@app.command()
def log(
    ctx: typer.Context,
    *,
    denied: Annotated[bool, typer.Option("--denied", help="Only what was refused.")] = False,
    decision: Annotated[
        Outcome | None, typer.Option("--decision", help="Only what was done, refused, or failed.")
    ] = None,
    op: Annotated[list[str] | None, typer.Option("--op", metavar="OP", help="Only this operation.")] = None,
    path: Annotated[
        list[str] | None,
        typer.Option(
            "--path", metavar="PATTERN", help="Only these paths; syntax of .gitignore: src/, *.env."
        ),
    ] = None,
    actor: Annotated[
        list[str] | None, typer.Option("--actor", metavar="NAME", help="Only what this agent did.")
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", metavar="NAME", help="Only what jail, guard, watch, run or audit saw."),
    ] = None,
    since: Since = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Up to then; as --since.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            metavar="N",
            min=0,
            help="The last N events (50; 10 with --follow), or the first N lines of each part of a summary "
            "(10); 0 shows all.",
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is added, one line each; Ctrl-C ends.")
    ] = False,
    summary: Annotated[
        bool, typer.Option("--summary", help="Count refusals by rule, path, agent and time.")
    ] = False,
    form: Annotated[
        Format,
        typer.Option("--format", help="ocsf: File System Activity as JSON, one a line, all unless -n."),
    ] = "text",
    export: Annotated[
        Literal["otel"] | None,
        typer.Option("--export", help="Send to an OpenTelemetry collector; see OTEL_EXPORTER_OTLP_ENDPOINT."),
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Prove the chain of the log instead.")] = False,
    root: Root = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document; with --follow one object a line.")
    ] = False,
) -> None:
    """Show what was tried and what became of it, oldest first."""
    from fsjail.cli import _log
    from fsjail.cli._open import moment

    where = _root_of(ctx, root)
    form = "json" if as_json and form == "text" else form
    modes = {"--verify": verify, "--summary": summary, "--follow": follow and not export, "--export": export}
    chosen = [name for name, on in modes.items() if on]
    if len(chosen) > 1:
        raise ConfigError(f"does not go together with {chosen[1]}", file=chosen[0])
    if form == "ocsf" and (verify or summary or export):
        raise ConfigError(f"does not go together with {chosen[0]}", file="--format")
    if verify:
        raise typer.Exit(_log.verify(where, as_json=form == "json"))
    given = {
        "denied": denied or None,
        "decision": decision,
        "op": op,
        "path": path,
        "actor": actor,
        "layer": layer,
        "since": moment(since),
        "until": moment(until, option="--until"),
    }
    wanted = {name: value for name, value in given.items() if value}
    if summary:
        raise typer.Exit(_log.summary(where, wanted, limit=limit, as_json=form == "json"))
    if export:
        raise typer.Exit(_log.send(where, wanted, limit=limit, onwards=follow))
    raise typer.Exit((_log.follow if follow else _log.log)(where, wanted, limit=limit, form=form))


@trash.callback(invoke_without_command=True)
def _trash(ctx: typer.Context) -> None:
    """What was deleted or overwritten, and can be brought back."""
    if ctx.invoked_subcommand is None:
        _say.say(ctx.get_help())


@trash.command("list")
def trash_list(ctx: typer.Context, *, root: Root = None, as_json: Json = False) -> None:
    """List what can be brought back, newest first."""
    from fsjail.cli._keep import listing as work

    raise typer.Exit(work(_root_of(ctx, root), as_json=as_json))


@trash.command()
def restore(
    ctx: typer.Context,
    item: Annotated[str, typer.Argument(metavar="ID", help="As `fsjail trash list` shows it, or its path.")],
    *,
    to: Annotated[
        str | None, typer.Option("--to", metavar="PATH", help="Bring it back as this name.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Put what stands there now into the trash.")
    ] = False,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Bring an item back to where it was."""
    from fsjail.cli._keep import restore as work

    raise typer.Exit(work(_root_of(ctx, root), item, to, overwrite=overwrite, as_json=as_json))


@trash.command()
def diff(
    ctx: typer.Context,
    item: Annotated[str, typer.Argument(metavar="ID", help="As `fsjail trash list` shows it.")],
    *,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Show what changed since an item was kept."""
    from fsjail.cli._keep import diff as work

    raise typer.Exit(work(_root_of(ctx, root), item, as_json=as_json))


@trash.command()
def purge(
    ctx: typer.Context,
    *,
    older_than_days: Annotated[
        float | None, typer.Option("--older-than-days", metavar="N", min=0, help="Remove what is older.")
    ] = None,
    keep: Annotated[
        str | None, typer.Option("--keep", metavar="SIZE", help="Remove the oldest, keep this much: 5GiB.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Remove items for good. Shows what goes and asks first."""
    from fsjail.cli._keep import purge as work

    raise typer.Exit(work(_root_of(ctx, root), older_than_days, keep, yes=yes, as_json=as_json))


@app.command()
def undo(
    ctx: typer.Context,
    *,
    actor: Actor = None,
    since: Since = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what it would do.")] = False,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Take back changes. The last one, or all of an agent or since a time; can be taken back itself."""
    from fsjail.cli._keep import undo as work

    raise typer.Exit(work(_root_of(ctx, root), actor, since, dry_run=dry_run, as_json=as_json))


@app.command()
def watch(
    ctx: typer.Context,
    *,
    no_unexplained: Annotated[
        bool, typer.Option("--no-unexplained", help="Leave out changes that are against no rule.")
    ] = False,
    polling: Annotated[
        bool, typer.Option("--polling", help="Look again and again instead of waiting for notices.")
    ] = False,
    root: Root = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Report changes that did not come through the jail. One a line, until Ctrl-C."""
    from fsjail.cli._watch import watch as work

    unexplained = not no_unexplained
    raise typer.Exit(work(_root_of(ctx, root), unexplained=unexplained, polling=polling, as_json=as_json))


@app.command()
def doctor(ctx: typer.Context, *, root: Root = None, as_json: Json = False) -> None:
    """Prove what works here. Probes machine and root, and tries what the file expects."""
    from fsjail.cli._doctor import doctor as work

    raise typer.Exit(work(_root_of(ctx, root), as_json=as_json))


def _asked(argv: list[str]) -> str | None:
    """Find the command in a line that has nothing but ``--root`` before it."""
    words = iter(argv)
    for word in words:
        if word == "--root":
            next(words, None)
        elif not word.startswith("--root="):
            return word
    return None


def _with_only(name: str | None) -> typer.Typer:
    """Leave out the commands that were not asked for: typer takes 8 ms to build them all."""
    if name is None or "_FSJAIL_COMPLETE" in os.environ:
        return app
    commands = [known for known in app.registered_commands if name in (known.name, _name(known))]
    groups = [known for known in app.registered_groups if known.typer_instance is trash and name == "trash"]
    if not (commands or groups):
        return app
    only = typer.Typer(name="fsjail", **_STYLE)
    only.registered_callback = app.registered_callback
    only.registered_commands, only.registered_groups = commands, groups
    return only


def _name(command: Any) -> str | None:
    return getattr(command.callback, "__name__", None)


def run(argv: list[str]) -> int:
    """Run one command line.

    Args:
        argv: the arguments without the program's name.

    Returns:
        The exit code.
    """
    command = typer.main.get_command(_with_only(_asked(argv)))
    try:
        code = command.main(args=argv, prog_name="fsjail", standalone_mode=False)
    except typer.Abort:
        return 1
    except Exception as error:
        # typer's usage errors have no public base class, only this method in common.
        if not hasattr(error, "format_message"):
            raise
        context = getattr(error, "ctx", None)
        where = context.command_path if context is not None else "fsjail"
        sentence = " ".join(error.format_message().split()).rstrip(".")
        _say.complain(f"{sentence}; see '{where} --help'")
        return 2
    return int(code or 0)
