"""`nri-resctrl-plugin doctor`: what this machine can do, what is missing, and the exact mend.

Owns: how a diagnosis is printed, and its exit status. Must not know: how anything is found out.
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import evolve

from nri_resctrl_plugin.cli.exits import Exit, Stop, flush_standard_output
from nri_resctrl_plugin.cli.place import place
from nri_resctrl_plugin.cli.terminal import paint_for, printable, width_of
from nri_resctrl_plugin.doctor import Host, Level, diagnose
from resctrl import FsProvider, RealFs, Resctrl

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterator, Mapping

    from nri_resctrl_plugin.cli.terminal import Paint
    from nri_resctrl_plugin.doctor import Diagnosis, Finding

__all__ = ["doctor", "lines_of"]

_COLOURS: Final = {Level.OK: "32", Level.WARN: "33", Level.FAIL: "1;31", Level.SKIP: "2"}
_RUNG_WIDTH: Final = 15
_INDENT: Final = " " * 23
_FIX: Final = "fix: "


def doctor(
    options: Namespace,
    environment: Mapping[str, str],
    *,
    options_of_run: Callable[[], Namespace],
    host: Host | None = None,
) -> int:
    """Print the diagnosis of this machine.

    Args:
        options: The flags.
        environment: The environment.
        options_of_run: Makes the flags of a `run`.
        host: Another machine than this one.

    Returns:
        0 where groups can be made and filled, 1 where something must be mended first.

    Raises:
        Stop: A setting is refused, or standard output cannot be written.
    """
    where = place(options, environment, options_of_run)
    if host is None:
        resctrl: Resctrl[FsProvider] = Resctrl.with_provider(RealFs(), where.config)
        host = Host(resctrl=resctrl, cgroup_root=where.cgroup_root)
    if options.socket_path:
        host = evolve(host, nri_socket=Path(options.socket_path))
    if sys.stdout is None:
        raise Stop(Exit.IO, "standard output is closed: the doctor has nobody to tell")
    diagnosis = diagnose(host, library=options.library, with_probe=options.probe)
    if options.json:
        text = json.dumps(diagnosis.as_json(), indent=2)
    else:
        lines = lines_of(diagnosis, paint_for(sys.stdout, environment), width_of(sys.stdout))
        encoding = sys.stdout.encoding
        text = "\n".join(lines).encode(encoding, "replace").decode(encoding)  # names are in any language
    try:
        print(text, flush=True)
    except BrokenPipeError:  # `doctor | head`
        flush_standard_output()
    except OSError as error:
        flush_standard_output()
        raise Stop(Exit.IO, f"cannot write to standard output: {error.strerror}") from error
    return Exit.OK if diagnosis.usable else Exit.UNUSABLE


def lines_of(diagnosis: Diagnosis, paint: Paint, width: int) -> Iterator[str]:
    """Yield the lines for a reader."""
    for finding in diagnosis.findings:
        yield from _lines(finding, paint, width)
    yield ""
    if diagnosis.usable:
        what = "the library can be used" if diagnosis.library else "pods can be monitored"
        yield paint(f"usable: {what}", _COLOURS[Level.OK])
    else:
        count = f"{len(diagnosis.failed)} of {len(diagnosis.findings)}"
        yield paint(f"not usable: {count} fail: {', '.join(diagnosis.failed)}", _COLOURS[Level.FAIL])


def _lines(finding: Finding, paint: Paint, width: int) -> Iterator[str]:
    level = finding.level
    word = level.value.upper() if level is Level.FAIL else level.value
    head = f" {paint(f'{word:<5}', _COLOURS[level])} {finding.rung:<{_RUNG_WIDTH}} "
    first, *more = _wrapped(finding.found, width)
    yield f"{head}{first}".rstrip()
    yield from more
    if finding.meaning:
        yield from (f"{_INDENT}{line.strip()}" for line in _wrapped(finding.meaning, width))
    lead = _FIX
    for line in finding.fix:
        yield f"{_INDENT}{paint(lead, '1')}{printable(line)}"
        lead = " " * len(_FIX)


def _wrapped(text: str, width: int) -> list[str]:
    """Break a text that comes after a head of its own; further lines are indented."""
    room = max(30, width - len(_INDENT))
    first, *more = textwrap.wrap(printable(text), room, break_on_hyphens=False) or [""]
    return [first, *(f"{_INDENT}{line}" for line in more)]
