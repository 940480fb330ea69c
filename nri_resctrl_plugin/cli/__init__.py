"""The program `nri-resctrl-plugin`: its commands, its flags, its exit status.

Owns: the way from `argv` to a command, and the only place where its end becomes a status. Must not know:
what a command does.

Rules:
    1. A flag may be written with one dash or two, `-idx 10` or `--idx=10`, as for plugins written in Go.
    2. A runtime that launches the program gives no arguments, only `NRI_PLUGIN_SOCKET`: that means `run`.
    3. Modules of a command are imported when it is called: a launched plugin has five seconds to register,
       and without the packages of the extra `nri` the program must be able to say so.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final, NoReturn

from nri_resctrl_plugin.cli.exits import Exit, Stop, complain, flush_standard_error, flush_standard_output
from nri_resctrl_plugin.cli.tool_flags import TOOLS, add_tools

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nri_resctrl_plugin.nri.ahead import Ahead

__all__ = ["main"]

_ONE_DASH: Final = re.compile(r"-[A-Za-z][A-Za-z-]+(=.*)?", re.DOTALL)
_GO_BOOLEAN: Final = re.compile(
    "--(?P<name>exit-on-disconnect|cleanup-on-start|cleanup-on-exit|auto-mount|fast)=(?P<value>true|false)"
)


def main(
    argv: Sequence[str] | None = None,
    environment: Mapping[str, str] = os.environ,
    *,
    ahead: Ahead | None = None,
) -> int:
    """Run the program.

    Args:
        argv: The arguments after the program's name; those of this process if None.
        environment: The environment.
        ahead: Who has spoken to the runtime already, on the connection of a launched plugin.

    Returns:
        The exit status.
    """
    arguments = [_two_dashes(each) for each in (sys.argv[1:] if argv is None else argv)]
    if not arguments and environment.get("NRI_PLUGIN_SOCKET"):
        arguments = ["run"]
    try:
        options = _parsed(arguments)
        return _command(options.command, arguments, ahead)(options, environment)
    except Stop as stop:
        complain(str(stop), launched=ahead is not None)
        return stop.status
    except KeyboardInterrupt:
        return Exit.OK
    finally:
        flush_standard_error()


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Understand the arguments, or end with what was asked for instead.

    Raises:
        Stop: Help or the version cannot be written.
        SystemExit: They were written, or the usage is wrong.
    """
    try:
        try:
            return _parser().parse_args(arguments)
        finally:  # at the interpreter's end it would be too late to say so
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        flush_standard_output()
        raise SystemExit(Exit.OK) from None
    except OSError as error:
        flush_standard_output()
        raise Stop(Exit.IO, f"cannot write: {error.strerror}") from error


def _command(
    name: str, arguments: Sequence[str], ahead: Ahead | None
) -> Callable[[argparse.Namespace, Mapping[str, str]], int]:
    """Import a command (rule 3).

    Raises:
        Stop: A package that it needs is not installed.
    """
    try:
        if name == "demo":
            from nri_resctrl_plugin.cli.demo import demo  # noqa: PLC0415 - rule 3

            return demo
        if name in TOOLS:
            tool = getattr(import_module(f"nri_resctrl_plugin.cli.{name}"), name)
            return functools.partial(tool, options_of_run=lambda: _parser(_Refusing).parse_args(["run"]))
        from nri_resctrl_plugin.cli.memory import UNUSED, without  # noqa: PLC0415 - rule 3

        with without(*UNUSED):
            from nri_resctrl_plugin.cli.run import run  # noqa: PLC0415 - rule 3
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"nri_resctrl_plugin", "resctrl"}:
            raise
        raise Stop(
            Exit.UNSUPPORTED,
            f"{error.name} is not installed: the plugin needs the extra: pip install 'resctrl[nri]'",
        ) from error

    def parse(flags: Sequence[str]) -> argparse.Namespace:
        return _parser(_Refusing).parse_args([name, *flags, *arguments[1:]])

    return functools.partial(run, parse=parse, ahead=ahead)


class _Refusing(argparse.ArgumentParser):
    """Judges flags that stand in a file: whoever knows the file says where."""

    def error(self, message: str) -> NoReturn:
        argument, colon, why = message.partition(": ")
        raise Stop(Exit.CONFIG, why if colon and argument.startswith("argument ") else message)


def _two_dashes(argument: str) -> str:
    """Write a long flag as argparse knows it."""
    flag = f"-{argument}" if _ONE_DASH.fullmatch(argument) else argument
    go = _GO_BOOLEAN.fullmatch(flag)
    if go is None:
        return flag
    return f"--{go['name']}" if go["value"] == "true" else f"--no-{go['name']}"


def _parser(kind: type[argparse.ArgumentParser] = argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser = kind(
        prog="nri-resctrl-plugin",
        description="Keeps one resctrl monitoring group per Kubernetes pod and tells how complete it is.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_run(commands.add_parser("run", help="serve a container runtime over NRI", allow_abbrev=False))
    demo = commands.add_parser(
        "demo", help="show the main job: no root, no RDT, no runtime, some seconds", allow_abbrev=False
    )
    demo.add_argument(
        "--fast",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="do not pause between the steps (no)",
    )
    add_tools(commands.add_parser)
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    flag = argparse.BooleanOptionalAction
    group = parser.add_argument_group("the runtime").add_argument
    group("--idx", metavar="NN", help="two digits: the order in which the runtime calls plugins (10)")
    group("--name", help="the plugin's name (resctrl)")
    group("--socket-path", metavar="PATH", help="the runtime's NRI socket (/var/run/nri/nri.sock)")
    group("--exit-on-disconnect", action=flag, default=False, help="exit 75 instead of connecting again (no)")
    group = parser.add_argument_group("the groups").add_argument
    group(
        "--config", metavar="FILE", help="YAML; variables NRI_RESCTRL_<SETTING> win over it, flags over both"
    )
    group("--group-prefix", metavar="TEXT", help="each group is named TEXT<pod uid> (pod_)")
    group("--resctrl-root", metavar="PATH", help="where resctrl is mounted (/sys/fs/resctrl)")
    group("--cleanup-on-start", action=flag, help="first remove groups with our prefix (yes)")
    group(
        "--cleanup-on-exit", action=flag, default=False, help="at the end remove groups with our prefix (no)"
    )
    group("--auto-mount", action=flag, help="mount resctrl if it is not (no)")
    group("--retry-interval", type=_seconds, default=10.0, metavar="SECONDS",
          help="how often to try again what was refused or is incomplete; 0: never (10)")  # fmt: skip
    group("--audit-interval", type=_seconds, default=60.0, metavar="SECONDS",
          help="how often to look for what went astray or unheard; 0: never (60)")  # fmt: skip
    group("--resctrl", choices=("real", "fake"), default="real", help="the kernel's, or one in memory (real)")
    group("--fake-rmids", type=int, default=256, metavar="N", help="RMIDs of the fake one (256)")
    group = parser.add_argument_group("output").add_argument
    group("--events", default="-", metavar="PATH", help="events as JSON Lines, - for standard output (-)")
    group("--control", metavar="PATH", help="open a control socket there: retries, audits and the snapshot")
    group(
        "--health-addr",
        metavar="HOST:PORT",
        help="serve /metrics, /livez and /readyz there (extra 'metrics')",
    )
    group("--metric-names", choices=("resctrl", "cadvisor"), default="resctrl",
          help="whose names the pods' counters have at /metrics (resctrl)")  # fmt: skip
    group("--log-file", metavar="PATH", help="- for standard error, journal for the system's log (-; journal"
          " where a runtime launched the program and standard error leads nowhere)")  # fmt: skip
    group("--log-format", choices=("text", "json"), default="text", help="of the log (text)")
    group("--log-level", choices=("debug", "info", "warning", "error"), default="info", help="(info)")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds, 0 or more")
    return value


class _Version(argparse.Action):
    """Look the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version  # noqa: PLC0415 - costs 20 ms that a launched plugin has not

        print(f"nri-resctrl-plugin {version('resctrl')}")
        parser.exit()
