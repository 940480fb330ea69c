"""Draws the tables of settings, flags and metrics in `docs/reference` from what the program has.

    python docs/render_reference.py            writes them
    python docs/render_reference.py --check    exits with 1 if a page is not what the program says

A table stands between a comment that names it and the comment `<!-- end -->`; what is around it stays. A test
runs the check.
"""  # noqa: INP001 - a script beside the pages it draws

from __future__ import annotations

import argparse
import re
import sys
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import NOTHING, fields
from prometheus_client import CollectorRegistry

from nri_resctrl_plugin import ResctrlPluginConfig, cli
from nri_resctrl_plugin.cli.settings import VARIABLE_PREFIX
from nri_resctrl_plugin.metrics import Instruments, MetricNames, PodCollector, PodView
from nri_resctrl_plugin.metrics.names import CADVISOR_LABELS, LABELS, metric_name
from resctrl import Domain, EventKind, Resctrl
from resctrl.testing import FakeFs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from attrs import Attribute
    from prometheus_client.core import Metric

REFERENCE: Final = Path(__file__).resolve().parent / "reference"

KINDS: Final = {
    "bool": "true or false",
    "str": "text",
    "int": "whole number",
    "Path": "absolute path",
    "StartupPolicy": "clean or adopt",
    "tuple[str, ...]": "list of text",
    "Mapping[str, str]": "mapping of text to text",
}
"""How a type of a setting is called."""

IN_A_FILE_ALONE: Final = frozenset({"tuple[str, ...]", "Mapping[str, str]"})
"""Types that a variable of the environment cannot hold."""

EVENTS: Final = (
    ("L3", "llc_occupancy"),
    ("L3", "mbm_total_bytes"),
    ("L3", "mbm_local_bytes"),
    ("PERF_PKG", "core_energy"),
    ("PERF_PKG", "activity"),
)
"""Counters that the library knows, each with the kind of domain that has it."""

_TABLE: Final = re.compile(r"(<!-- (?P<name>[a-z ]+): drawn by [^>]*-->\n).*?(<!-- end -->\n)", re.DOTALL)
_DEFAULT: Final = re.compile(r"^(?P<text>.*?) ?\((?!extra )(?P<default>[^();]*)(?P<unless>;[^()]*)?\)$")


def drawn(page: str) -> str:
    """Return a page with its tables drawn anew.

    Args:
        page: The page as it is.

    Raises:
        KeyError: It has a table of another name.
    """
    return _TABLE.sub(lambda found: found[1] + "\n" + _named(found["name"]) + "\n" + found[3], page)


def _named(name: str) -> str:
    if name.startswith("flags of "):
        return _flags(name.removeprefix("flags of "))
    return {"settings": _settings, "counters": _counters, "instruments": _instruments}[name]()


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell or ' ' for cell in line)} |\n" for line in lines)


# --- settings ---


def _settings() -> str:
    meanings = _attributes(ResctrlPluginConfig)
    return _table(
        ("key", "default", "kind", "meaning", "variable"),
        (
            (
                f"`{each.name}`",
                f"`{_default(each)}`",
                KINDS[str(each.type)],
                meanings[each.name],
                "" if str(each.type) in IN_A_FILE_ALONE else f"`{VARIABLE_PREFIX}{each.name.upper()}`",
            )
            for each in fields(ResctrlPluginConfig)
        ),
    )


def _default(setting: Attribute[object]) -> str:
    """Write a default as YAML has it."""
    default = setting.default
    if default is NOTHING or not isinstance(default, bool | int | str | Path | tuple):
        return "{}"
    if isinstance(default, bool):
        return str(default).lower()
    return "[]" if default == () else str(default)


def _attributes(kind: type) -> dict[str, str]:
    """Return what a class's docstring says of each attribute."""
    text = cleandoc(kind.__doc__ or "")
    section = text.partition("\nAttributes:\n")[2].partition("\n\n")[0]
    found = re.finditer(r"^    (\w+): (.*(?:\n {6,}.*)*)", section, re.MULTILINE)
    return {name: " ".join(meaning.split()) for name, meaning in (match.groups() for match in found)}


# --- flags ---


def _flags(command: str) -> str:
    return _table(("flag", "default", "meaning"), (_flag(each) for each in _actions(command)))


def _actions(command: str) -> Iterator[argparse.Action]:
    (commands,) = (
        each
        for each in cli._parser()._actions  # noqa: SLF001 - argparse shows what it parses to nobody
        if isinstance(each, argparse._SubParsersAction)  # noqa: SLF001 - as above
    )
    parser: argparse.ArgumentParser = commands.choices[command]
    for action in parser._actions:  # noqa: SLF001 - as above
        if action.option_strings and action.dest != "help":
            yield action


def _flag(action: argparse.Action) -> tuple[str, str, str]:
    names = list(action.option_strings)
    if action.choices is not None:
        first, *others, last = action.choices
        shown = [f"{names[-1]} {first}", *others]
        spelled = ", ".join(f"`{each}`" for each in shown) + f" or `{last}`"
    else:
        suffix = f" {action.metavar}" if action.nargs is None and action.metavar else ""
        suffix = suffix or (" TEXT" if action.nargs is None else "")
        spelled = ", ".join(f"`{each}{suffix}`" for each in reversed(names))
        if isinstance(action, argparse.BooleanOptionalAction):
            spelled = ", ".join(f"`{each}`" for each in names)
    told = " ".join((action.help or "").replace("<", "&lt;").split())
    found = _DEFAULT.match(told)
    if found is None:
        return spelled, "", told
    default = found["default"] if found["default"] in {"yes", "no"} else f"`{found['default']}`"
    return spelled, default + (found["unless"] or ""), found["text"]


# --- metrics ---


def _counters() -> str:
    rows = []
    for kind, event in EVENTS:
        domain = Domain(f"mon_{kind}_00", kind, 0, None)
        name = metric_name(domain, event)
        suffix = "_total" if name.kind is EventKind.COUNTER else ""
        other = metric_name(domain, event, MetricNames.CADVISOR)
        compatible = f"`{other.name}`" if other != name else ""
        rows.append((f"`{name.name}{suffix}`", name.kind.value, name.text, f"`{event}`", compatible))
    labels, others = (", ".join(f"`{each}`" for each in of) for of in (LABELS, CADVISOR_LABELS))
    head = ("metric", "type", "meaning", "file of the kernel", "with `--metric-names cadvisor`, a gauge")
    return _table(head, rows) + f"\nLabels: {labels}; with cAdvisor's names {others}.\n"


def _instruments() -> str:
    registry = CollectorRegistry()
    instruments = Instruments(registry)
    with instruments.timed("StartContainer"):  # a label that nobody has used yet is not told
        pass
    view = PodView({}, Resctrl.with_provider(FakeFs()))
    registry.register(PodCollector(lambda: view))
    families = [family for family in registry.collect() if family.name.startswith("nri_resctrl_")]
    return _table(("metric", "type", "meaning", "labels"), (_instrument(family) for family in families))


def _instrument(family: Metric) -> tuple[str, str, str, str]:
    suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
    values: dict[str, list[str]] = {}
    for sample in family.samples:
        for label, value in sample.labels.items():
            values.setdefault(label, [])
            if value not in values[label]:
                values[label].append(value)
    values.pop("le", None)
    fixed = family.type in {"counter", "gauge"}
    labels = (f"`{label}`" + (f" ({', '.join(of)})" if fixed else "") for label, of in values.items())
    return f"`{family.name}{suffix}`", family.type, family.documentation, ", ".join(labels)


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or check them.

    Args:
        arguments: What stands after the script's name.

    Returns:
        The exit code.
    """
    stale = False
    for path in sorted(REFERENCE.glob("*.md")):
        page = path.read_text(encoding="utf-8")
        if drawn(page) == page:
            continue
        if "--check" in arguments:
            stale = True
            sys.stderr.write(
                f"{path.name} is not what the program says: run python docs/render_reference.py\n"
            )
        else:
            path.write_text(drawn(page), encoding="utf-8")
    return int(stale)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
