"""The plugin's settings as a deployment gives them: file, environment, flags.

Owns: which of them wins. Must not know: what a setting does.

Rules:
    1. Later wins: defaults, the file of `--config`, the text that a runtime hands a plugin that it launched,
       variables `NRI_RESCTRL_<SETTING>`, flags.
    2. Other variables that begin alike are left alone: Kubernetes makes `NRI_RESCTRL_SERVICE_HOST` of a
       service.
    3. Every refusal says where the value stood.
    4. What two settings must not be together is judged of the result, not of a source: a flag may mend what
       the file alone would get wrong.
    5. The file may hold every flag of `run` as well, with `_` for `-`: a launched plugin has no other place.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve, field, fields, frozen, make_class

from nri_resctrl_plugin.cli.exits import Exit, Stop
from nri_resctrl_plugin.config import ResctrlPluginConfig, SettingError
from nri_resctrl_plugin.errors import ConfigError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Mapping, Sequence

    from attrs import Attribute

__all__ = ["VARIABLE_PREFIX", "flags_in_force", "settings"]

VARIABLE_PREFIX: Final = "NRI_RESCTRL_"
"""What the variables of settings begin with."""

_WORDS: Final = {"true": True, "false": False}


_TOLD: Final = "the runtime's configuration"
_NOT_IN_A_FILE: Final = frozenset({"command", "config"})


def flags_in_force(
    options: Namespace,
    environment: Mapping[str, str],
    parse: Callable[[Sequence[str]], Namespace],
    told: str = "",
) -> Namespace:
    """Return the flags in force: those that a file sets, and over them those of the command line.

    Args:
        options: The flags of the command line.
        environment: As for `settings`.
        parse: Parses some flags, and the command line after them; raises Stop where one is refused.
        told: As for `settings`.

    Raises:
        Stop: The file or the text is refused, or one of its flags.
    """
    kind = _with_flags(_Draft, options, parse)
    try:
        draft = _draft(kind, options, environment, told)
    except ConfigError as error:
        raise Stop(Exit.CONFIG, str(error)) from error
    given = {name: getattr(draft, name) for name in _flags_of(options)}
    return parse([_flag(name, value) for name, value in given.items() if value is not None])


def settings(options: Namespace, environment: Mapping[str, str], told: str = "") -> ResctrlPluginConfig:
    """Return the settings in force.

    Args:
        options: The flags; one that was not given is None. `config` names the file.
        environment: The environment; `NRI_RESCTRL_CONFIG` names the file where no flag does.
        told: What the runtime hands the plugin that it launched.

    Raises:
        Stop: One is refused.
    """
    names = [each.name for each in fields(ResctrlPluginConfig)]
    given: dict[str, Any] = {name: getattr(options, name, None) for name in names}
    flags = {name: value for name, value in given.items() if value is not None}
    try:
        draft = _draft(_with_flags(_Draft, options), options, environment, told)
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
        raise Stop(Exit.CONFIG, _told_of_file(options, environment, told, error)) from error


def _file(options: Namespace, environment: Mapping[str, str]) -> str | None:
    return options.config or environment.get(f"{VARIABLE_PREFIX}CONFIG")


def _draft(
    kind: type[ResctrlPluginConfig], options: Namespace, environment: Mapping[str, str], told: str
) -> ResctrlPluginConfig:
    """Read the file, and over it what the runtime told."""
    file = _file(options, environment)
    draft = kind.from_file(Path(file)) if file else kind()
    return kind.from_yaml(told, source=_TOLD, base=draft)


def _flags_of(options: Namespace) -> list[str]:
    """Return the flags that a file may set and that are no settings of the plugin."""
    ours = {each.name for each in fields(ResctrlPluginConfig)}
    return sorted(set(vars(options)) - ours - _NOT_IN_A_FILE)


def _with_flags(
    base: type[ResctrlPluginConfig],
    options: Namespace,
    parse: Callable[[Sequence[str]], Namespace] | None = None,
) -> type[ResctrlPluginConfig]:
    """Return settings that hold flags as well (rule 5); the command line's parser judges them, if given."""

    def judge(_: object, attribute: Attribute[object], value: object) -> None:
        name = attribute.name
        if value is None or parse is None:
            return
        if isinstance(getattr(options, name), bool):
            if not isinstance(value, bool):
                raise SettingError(name, f"must be true or false, not {value!r}")
        elif isinstance(value, bool) or not isinstance(value, str | int | float):
            raise SettingError(name, f"must be text or a number, not {value!r}; put it in quotes")
        try:
            parse([_flag(name, value)])
        except Stop as refusal:
            raise SettingError(name, str(refusal)) from refusal

    more = {name: field(default=None, validator=judge) for name in _flags_of(options)}
    kind: type[ResctrlPluginConfig] = make_class(
        base.__name__, more, bases=(base,), frozen=True, kw_only=True, slots=True
    )
    return kind


def _flag(name: str, value: object) -> str:
    """Write a flag as on the command line."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag}={value}"


@frozen(kw_only=True)
class _Draft(ResctrlPluginConfig):
    """Settings of which each is right and all together may not be (rule 4)."""

    def __attrs_post_init__(self) -> None:
        """Leave the judgement to the real one."""


def _told_of_file(options: Namespace, environment: Mapping[str, str], told: str, error: SettingError) -> str:
    """Say where the setting stands that is refused, as far as the file or the text alone tells."""
    try:
        _draft(_with_flags(ResctrlPluginConfig, options), options, environment, told)
    except ConfigError as own:
        return str(own)
    file = _file(options, environment)
    return f"{file}: {error}" if file else str(error)


def _with_variables(config: ResctrlPluginConfig, environment: Mapping[str, str]) -> ResctrlPluginConfig:
    """Overlay the variables, each read as the type of the setting that it replaces.

    Raises:
        ConfigError: One is refused; the message names the variable.
    """
    values: dict[str, Any] = {}
    for each in fields(ResctrlPluginConfig):
        variable = _variable(each.name)
        text = environment.get(variable)
        if text is None:
            continue
        match getattr(config, each.name):
            case bool():
                if text not in _WORDS:
                    raise ConfigError(f"{variable}: must be true or false, not {text!r}")
                values[each.name] = _WORDS[text]
            case int():
                if not re.fullmatch("[0-9]{1,9}", text):
                    raise ConfigError(f"{variable}: must be a whole number, not {text!r}")
                values[each.name] = int(text)
            case _:
                values[each.name] = text
    try:
        return evolve(config, **values)
    except SettingError as error:
        raise ConfigError(f"{_variable(error.key)}: {error}") from error


def _variable(setting: str) -> str:
    return VARIABLE_PREFIX + setting.upper()
