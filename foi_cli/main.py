"""`foi`: the commands, and the one place where errors become exit statuses."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from foi_cli import doctor, edit, info, processes
from foi_cli.console import say
from foi_cli.errors import CliError, Interrupted


class Foi(TyperGroup):
    """Says in one line what went wrong. Exit status 0; 1: the edit failed; 2: usage; 3: something cannot be reached or
    used; 130: Ctrl-C."""

    def main(self, *args: Any, **options: Any) -> Any:
        try:
            status = super().main(*args, **{**options, "standalone_mode": False})
        except CliError as error:
            say(error, "yellow" if isinstance(error, Interrupted) else "red")
            status = error.exit_code
        except typer.TyperException as error:
            command = getattr(getattr(error, "ctx", None), "command_path", "foi")
            say(f"{error.format_message().rstrip('.')}; see {command} --help", "red")
            status = error.exit_code
        sys.exit(status or 0)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted("stopped") from None


app = typer.Typer(
    cls=Foi,
    help="Focus on Your Instruction: edits of pictures that change only what was asked.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
)
app.command("edit")(edit.edit)
app.command("masks")(edit.find_masks)
app.command("serve")(processes.serve)
app.command("worker")(processes.work)
app.command("keys", context_settings=processes.PASSED_ON)(processes.manage_keys)
app.add_typer(processes.evaluate, name="eval")
app.command("calibrate", context_settings=processes.PASSED_ON)(processes.calibrate)
app.command("info")(info.info)
app.command("doctor")(doctor.doctor)
app.command("openapi")(processes.openapi)


@app.callback()
def foi(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        print(info.version())
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
