"""The plugin's settings as a deployment gives them: file, environment, flags.

Owns: which of them wins. Must not know: what a setting does.

Rules:
    1. Later wins: defaults, the file of `--config`, variables `NRI_RESCTRL_<SETTING>`, flags. A plugin that
       the runtime launched has neither flags nor variables: its settings come with Configure, over the
       defaults.
    2. Other variables that begin alike are left alone: Kubernetes makes `NRI_RESCTRL_SERVICE_HOST` of a
       service.
    3. Every refusal says where the value stood.
    4. What two settings must not be together is judged of the result, not of a source: a flag may mend what
       the file alone would get wrong.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve, fields, frozen

from nri_resctrl_plugin.cli.exits import Exit, Stop
from nri_resctrl_plugin.config import ResctrlPluginConfig, SettingError
from nri_resctrl_plugin.errors import ConfigError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping

__all__ = ["VARIABLE_PREFIX", "settings"]

VARIABLE_PREFIX: Final = "NRI_RESCTRL_"
"""What the variables of settings begin with."""

_WORDS: Final = {"true": True, "false": False}


def settings(options: Namespace, environment: Mapping[str, str]) -> ResctrlPluginConfig:
    """Return the settings in force.

    Args:
        options: The flags; one that was not given is None. `config` names the file.
        environment: The environment; `NRI_RESCTRL_CONFIG` names the file where no flag does.

    Raises:
        Stop: One is refused.
    """
    file = options.config or environment.get(f"{VARIABLE_PREFIX}CONFIG")
    names = [field.name for field in fields(ResctrlPluginConfig)]
    given: dict[str, Any] = {name: getattr(options, name, None) for name in names}
    flags = {name: value for name, value in given.items() if value is not None}
    try:
        draft = _Draft.from_file(Path(file)) if file else _Draft()
        draft = evolve(_with_variables(draft, environment), **flags)
    except ConfigError as error:
        raise Stop(Exit.CONFIG, str(error)) from error
    try:
        return ResctrlPluginConfig(**{name: getattr(draft, name) for name in names})
    except SettingError as error:
        if error.key in flags:
            raise Stop(Exit.CONFIG, str(error)) from error
        if _variable(error.key) in environment:
            raise Stop(Exit.CONFIG, f"{_variable(error.key)}: {error}") from error
        raise Stop(Exit.CONFIG, _told_of_file(file, error)) from error


@frozen(kw_only=True)
class _Draft(ResctrlPluginConfig):
    """Settings of which each is right and all together may not be (rule 4)."""

    def __attrs_post_init__(self) -> None:
        """Leave the judgement to the real one."""


def _told_of_file(file: str | None, error: SettingError) -> str:
    """Say where in the file the setting stands that is refused, as far as the file alone tells."""
    if not file:
        return str(error)
    try:
        ResctrlPluginConfig.from_file(Path(file))
    except ConfigError as own:
        return str(own)
    return f"{file}: {error}"


def _with_variables(config: ResctrlPluginConfig, environment: Mapping[str, str]) -> ResctrlPluginConfig:
    """Overlay the variables, each read as the type of the setting that it replaces.

    Raises:
        ConfigError: One is refused; the message names the variable.
    """
    values: dict[str, Any] = {}
    for field in fields(ResctrlPluginConfig):
        variable = _variable(field.name)
        text = environment.get(variable)
        if text is None:
            continue
        match getattr(config, field.name):
            case bool():
                if text not in _WORDS:
                    raise ConfigError(f"{variable}: must be true or false, not {text!r}")
                values[field.name] = _WORDS[text]
            case int():
                if not re.fullmatch("[0-9]{1,9}", text):
                    raise ConfigError(f"{variable}: must be a whole number, not {text!r}")
                values[field.name] = int(text)
            case _:
                values[field.name] = text
    try:
        return evolve(config, **values)
    except SettingError as error:
        raise ConfigError(f"{_variable(error.key)}: {error}") from error


def _variable(setting: str) -> str:
    return VARIABLE_PREFIX + setting.upper()
