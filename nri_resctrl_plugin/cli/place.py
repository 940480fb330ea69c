"""Where the tools look: the root, the prefix and the cgroups of the plugin on this node.

Owns: how the tools come to the same answer as `run`. Must not know: what a tool does there.

Rules:
    1. Later wins, as for `run`: defaults, the settings' file, variables, flags.
    2. Without a file the packages of the extra `nri` are not needed.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from nri_resctrl_plugin.cli.exits import Exit, Stop
from resctrl import ResctrlConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Place", "place"]

_PREFIX = "NRI_RESCTRL_"
_DEFAULTS = ResctrlConfig()


@frozen
class Place:
    """Where to look.

    Attributes:
        config: Root and prefix.
        cgroup_root: Where cgroups are mounted.
    """

    config: ResctrlConfig
    cgroup_root: Path = Path("/sys/fs/cgroup")


def place(
    options: Namespace, environment: Mapping[str, str], options_of_run: Callable[[], Namespace]
) -> Place:
    """Return where to look.

    Args:
        options: The tool's flags: `resctrl_root`, `group_prefix`, `config`.
        environment: The environment.
        options_of_run: Makes the flags of a `run` without any: a file may hold them too.

    Raises:
        Stop: A setting is refused.
    """
    if options.config or environment.get(f"{_PREFIX}CONFIG"):
        return _of_file(options, environment, options_of_run())

    def given(name: str, default: object) -> str:
        flag = getattr(options, name, None)
        return str(flag if flag is not None else environment.get(f"{_PREFIX}{name.upper()}", default))

    root = given("resctrl_root", _DEFAULTS.root)
    prefix = given("group_prefix", _DEFAULTS.group_prefix)
    if not root.startswith("/"):
        raise Stop(Exit.CONFIG, f"resctrl_root: must be an absolute path, not {root!r}")
    try:
        config = ResctrlConfig(root=Path(root), group_prefix=prefix)
    except ValueError as error:
        raise Stop(Exit.CONFIG, f"group_prefix: no group can be named {prefix!r}...") from error
    return Place(config, Path(given("cgroup_root", "/sys/fs/cgroup")))


def _of_file(options: Namespace, environment: Mapping[str, str], run: Namespace) -> Place:
    try:
        from nri_resctrl_plugin.cli.settings import settings  # noqa: PLC0415 - rule 2
    except ModuleNotFoundError as error:
        why = f"{error.name} is not installed: a file of settings needs the extra: pip install 'resctrl[nri]'"
        raise Stop(Exit.UNSUPPORTED, why) from error
    told = {
        "config": options.config,
        "resctrl_root": options.resctrl_root,
        "group_prefix": options.group_prefix,
    }
    in_force = settings(Namespace(**{**vars(run), **told}), environment)
    return Place(
        ResctrlConfig(root=in_force.resctrl_root, group_prefix=in_force.group_prefix), in_force.cgroup_root
    )
