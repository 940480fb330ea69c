"""How a run begins: where its flags and settings come from, and where it logs.

Owns: the difference between a plugin that somebody starts and one that the runtime launches. Must not know:
what is run.

Rules:
    1. A plugin that somebody starts ends where a setting is refused.
    2. One that the runtime launched does not: some runtimes would end with it. What is wrong in the settings
       is told, the defaults stay, and nothing is swept, since it is not known which groups are ours.
    3. A launched plugin has no standard error, so it logs to the journal, unless a file is named. Whoever
       named one looks there: it is used even where the settings around it are refused.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Final

import structlog
from attrs import evolve

from nri_resctrl_plugin.cli.exits import Exit, Stop
from nri_resctrl_plugin.cli.logs import JOURNAL, STANDARD_ERROR, leads_nowhere, set_up_logs
from nri_resctrl_plugin.cli.settings import flags_in_force, settings

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Mapping, Sequence

    from structlog.typing import FilteringBoundLogger

    from nri_resctrl_plugin.config import ResctrlPluginConfig
    from nri_resctrl_plugin.nri.ahead import Ahead

__all__ = ["begin"]

PATIENCE: Final = 10.0
"""Seconds that a launched plugin waits for its settings: as long as a session for its Configure."""

_LOG_FILE: Final = re.compile(r"""^log_file:[ \t]*["']?(/[^"'#\n]*?)["']?[ \t]*(#.*)?$""", re.MULTILINE)


def begin(
    options: Namespace,
    environment: Mapping[str, str],
    parse: Callable[[Sequence[str]], Namespace],
    ahead: Ahead | None,
) -> tuple[Namespace, ResctrlPluginConfig]:
    """Begin to log, and return the flags and the settings in force.

    Args:
        options: The flags of the command line.
        environment: The environment.
        parse: Parses flags that come before those of the command line.
        ahead: Who has spoken to the runtime that launched us, if one did.

    Raises:
        Stop: One is refused, or the log cannot be written (rule 1).
    """
    if ahead is None:
        _set_up_logs(options, launched=False)
        options = flags_in_force(options, environment, parse)
        _set_up_logs(options, launched=False)
        return options, settings(options, environment)
    told = ahead.settings(PATIENCE) or ""
    try:
        flags = flags_in_force(options, environment, parse, told)
        config = settings(options, environment, told)
    except Stop as refusal:
        named = _LOG_FILE.search(told)
        options.log_file = options.log_file or (named[1] if named is not None else None)
        _set_up_logs(options, launched=True)
        log: FilteringBoundLogger = structlog.get_logger("nri_resctrl_plugin")
        log.error(  # noqa: TRY400 - the refusal says it all
            "configuration_refused", error=str(refusal), consequence="defaults are used; nothing is swept"
        )
        flags = flags_in_force(options, environment, parse)
        return flags, evolve(settings(options, environment), cleanup_on_start=False)
    _set_up_logs(flags, launched=True)
    return flags, config


def _set_up_logs(options: Namespace, *, launched: bool) -> None:
    """Log where the flags say; a launched plugin where it can."""
    nowhere = launched and leads_nowhere(sys.stderr)
    target = options.log_file or (JOURNAL if nowhere else STANDARD_ERROR)
    try:
        set_up_logs(options.log_format, options.log_level, target)
    except OSError as error:
        why = f"cannot write the log to {target!r}: {error.strerror}"
        if not launched:
            raise Stop(Exit.IO, why) from error
        set_up_logs(options.log_format, options.log_level, JOURNAL if nowhere else STANDARD_ERROR)
        log: FilteringBoundLogger = structlog.get_logger("nri_resctrl_plugin")
        log.error("log_not_opened", error=why)  # noqa: TRY400 - it says it all
