"""The command line. Each command lives in a module of its own, imported when it runs, so that the agent never loads the
job's dependencies nor the other way round.

Errors are one line on stderr that says what to do; status 2 is a usage or settings error, 1 a failure, 130 Ctrl-C.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, NoReturn

import click

from schemas.errors import VacancyError

# command -> (module, the extra whose dependencies it needs)
_COMMANDS = {
    "up": ("jobs.up", "local"),
    "agent": ("jobs.agent", "agent"),
    "simulate": ("jobs.simulate", "simulate"),
    "job": ("jobs.job", "job"),
    "hosts": ("jobs.hosts", "scheduler"),
    "dead-letters": ("jobs.dead_letters", "kafka"),
    "migrate": ("jobs.migrate", "scheduler"),
    "doctor": ("jobs.doctor", "scheduler,kafka"),
}


class _Commands(click.Group):
    """Finds a command in its module: the attribute ``command``, a click command."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module, extra = _COMMANDS[cmd_name]
        try:
            command: click.Command = importlib.import_module(module).command
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] in ("jobs", "topology", "connectors", "schemas"):
                raise
            raise VacancyError(
                f"`vacancy {cmd_name}` needs {error.name}, which is not installed; pip install 'vacancy[{extra}]'"
            ) from None
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vacancy")
def cli() -> None:
    """A live table of what every compute node has free, for schedulers.

    \b
    Try it on this machine:   vacancy up
    With a simulated fleet:   vacancy up --hosts 1000
    Look at the table:        vacancy hosts --watch
    Find what is wrong:       vacancy doctor
    """


def main(args: list[str] | None = None) -> NoReturn:
    """Runs a command line and exits with its status."""
    try:
        status: Any = cli.main(args=args, prog_name="vacancy", standalone_mode=False)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.UsageError as error:
        hint = f" (see `{error.ctx.command_path} --help`)" if error.ctx else ""
        _fail(f"{error.format_message()}{hint}", 2)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except VacancyError as error:
        _fail(str(error), error.exit_status)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output (a pager, head) has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, status: int) -> NoReturn:
    print(f"vacancy: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
