"""The command line.

Each command is the attribute ``command`` of the module with its name. The module is imported when the command runs, so
the agent never loads the job's dependencies.

Errors are one line on stderr that says what to do; status 2 is a usage or settings error, 1 a failure, 130 Ctrl-C.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, NamedTuple, NoReturn

import click

from vacancy.jobs import logs
from vacancy.jobs.terminal import write_any_text
from vacancy.schemas.errors import NoAnswerError, VacancyError


class _Command(NamedTuple):
    """For each command the extra that it needs, and its line in the help."""

    extra: str
    help: str


_COMMANDS = {
    "up": _Command("local", "The whole system on this machine, with the table live."),
    "agent": _Command("agent", "Emit this compute node's events."),
    "bridge": _Command("notifications", "Emit events for a cloud's hosts, from its notifications."),
    "storage": _Command("cinder", "Emit events for Cinder's pools."),
    "simulate": _Command("simulate", "Emit the events of a simulated fleet."),
    "job": _Command("job", "The Flink job: run it here, or on a Flink cluster."),
    "hosts": _Command("scheduler", "Show the table: free, rates, age, why a host is out."),
    "host": _Command("scheduler", "Show one host, whole."),
    "status": _Command("scheduler", "Show each part of the system, a line each."),
    "web": _Command("web", "Show the fleet in a browser."),
    "claim": _Command("scheduler", "Pick hosts and claim them."),
    "release": _Command("scheduler", "Give claims back."),
    "claims": _Command("scheduler", "List the claims in flight."),
    "disable": _Command("scheduler", "Take hosts out for now."),
    "enable": _Command("scheduler", "Take back hosts that were disabled."),
    "retire": _Command("scheduler,kafka", "Take hosts out for good."),
    "extender": _Command("extender", "Filter and rank nodes for kube-scheduler."),
    "dead-letters": _Command("kafka", "Show what was put aside: bad records, refused rows."),
    "drift": _Command("scheduler", "Show hosts whose allocations and measurements disagree."),
    "advise": _Command("scheduler", "Say how often hosts should report, what that costs and buys."),
    "migrate": _Command("scheduler", "Bring the tables to this version."),
    "topics": _Command("kafka", "Make the topics, or check them."),
    "config": _Command("scheduler", "Write a settings file, or check one."),
    "doctor": _Command("scheduler", "Say what is wrong with a setup, and what to do."),
}


class _Commands(click.Group):
    """Imports a command only when it runs; the help needs no import."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in _COMMANDS.items()])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module = f"{__package__}.{cmd_name.replace('-', '_')}"
        try:
            command: click.Command = importlib.import_module(module).command
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] == "vacancy":
                raise
            extra = _COMMANDS[cmd_name].extra
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
    write_any_text()
    try:
        status: Any = cli.main(args=args, prog_name="vacancy", standalone_mode=False)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())  # noqa: TID251  # the help: several lines without foreign text
        sys.exit(2)
    except click.UsageError as error:
        hint = f" (see `{error.ctx.command_path} --help`)" if error.ctx else ""
        _fail(f"{error.format_message().rstrip('.')}{hint}", 2)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except VacancyError as error:
        _fail(f"{error}{_without_a_stack(error)}", error.exit_status)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        # The reader of the output, such as a pager or head, has closed it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(status if isinstance(status, int) else 0)


def _without_a_stack(error: VacancyError) -> str:
    """What helps where no server answers because nobody has said where one is."""
    from vacancy.jobs.settings import find_config

    told = any(name.startswith("VACANCY_") and "__" in name for name in os.environ) or "--config" in sys.argv
    if told or not isinstance(error, NoAnswerError) or find_config(None, None) is not None:
        return ""
    return " (no settings file is here; `vacancy up` runs a whole system on this machine, --config names another's)"


def _fail(message: str, status: int) -> NoReturn:
    logs.fail(" ".join(message.split()))
    sys.exit(status)
