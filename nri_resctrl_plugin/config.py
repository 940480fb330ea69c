"""The plugin's settings, checked once at the door.

Owns: the fields, their defaults, what they may be, and the way in from YAML. Must not know: who reads them.

Rules:
    1. Whoever holds a `ResctrlPluginConfig` holds a valid one: the constructor refuses everything else.
    2. Types are strict: `1` for a boolean and `"10"` for a count are refused, not guessed.
    3. An unknown key is refused, with its line and the key that was probably meant.
    4. YAML is data here: no aliases, no tags, at most 64 KiB, no deep nesting.
    5. Every refusal is a `ConfigError` that names the place and the mend.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import yaml
from attrs import field, fields, frozen
from cattrs import Converter
from cattrs.errors import ForbiddenExtraKeysError

from nri_resctrl_plugin.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from attrs import Attribute

__all__ = ["MAX_CONFIG_BYTES", "ResctrlPluginConfig", "SettingError", "StartupPolicy"]

StartupPolicy: TypeAlias = Literal["clean", "adopt"]
"""What becomes of our groups that are there when the plugin starts."""

MAX_CONFIG_BYTES: Final = 64 * 1024
"""A configuration is some lines; more is a mistake or an attack."""

_MAX_DEPTH: Final = 8
_MAX_PASSES: Final = 1000
_MAX_GROUPS: Final = 1_000_000
_PREFIX: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
_NAMESPACE: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class SettingError(ConfigError):
    """One setting is refused; whoever knows the file adds the place.

    Attributes:
        key: The setting.
    """

    def __init__(self, key: str, why: str) -> None:
        self.key = key
        super().__init__(f"{key}: {why}")


def _is_bool(_: object, attribute: Attribute[bool], value: object) -> None:
    if not isinstance(value, bool):
        raise SettingError(attribute.name, f"must be true or false, not {value!r}")


def _is_prefix(_: object, attribute: Attribute[str], value: object) -> None:
    if not isinstance(value, str):
        raise SettingError(attribute.name, f"must be text, not {value!r}; put it in quotes")
    if value and not _PREFIX.fullmatch(value):
        raise SettingError(
            attribute.name,
            f"{value[:80]!r} may hold at most 63 letters, digits, '_', '.' and '-', the first no '.' or '-'",
        )


def _is_count(least: int, most: int) -> Callable[[object, Attribute[int], object], None]:
    def check(_: object, attribute: Attribute[int], value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            raise SettingError(attribute.name, f"must be a whole number, not {value!r}")
        if not least <= value <= most:
            raise SettingError(attribute.name, f"must be between {least} and {most}")

    return check


def _is_policy(_: object, attribute: Attribute[StartupPolicy], value: object) -> None:
    if value not in get_args(StartupPolicy):
        raise SettingError(attribute.name, f"must be clean or adopt, not {value!r}")


def _are_namespaces(_: object, attribute: Attribute[tuple[str, ...]], value: object) -> None:
    if not isinstance(value, tuple):
        raise SettingError(attribute.name, f"must be a list of namespaces, not {value!r}")
    for name in value:
        if not isinstance(name, str) or not _NAMESPACE.fullmatch(name):
            raise SettingError(attribute.name, f"{name!r} is no namespace of Kubernetes")


def _are_labels(_: object, attribute: Attribute[Mapping[str, str]], value: object) -> None:
    if not isinstance(value, Mapping):
        raise SettingError(attribute.name, f"must be a mapping of labels to values, not {value!r}")
    for key, text in value.items():
        if not isinstance(key, str) or not key:
            raise SettingError(attribute.name, f"{key!r} is no label's name; put it in quotes")
        if not isinstance(text, str):
            raise SettingError(attribute.name, f"the value of {key!r} must be text, not {text!r}; quote it")


def _is_directory_name(_: object, attribute: Attribute[Path], value: object) -> None:
    if not isinstance(value, Path):
        raise SettingError(attribute.name, f"must be a path, not {value!r}")
    if not value.is_absolute() or ".." in value.parts or "\0" in str(value):
        raise SettingError(attribute.name, f"must be an absolute path without '..', not {str(value)!r}")


def _to_path(value: str | Path) -> Path:
    """Make a path of text and leave the rest to the validator, which can name the setting."""
    return Path(value) if isinstance(value, str) else value


def _to_tuple(value: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Make a list unchangeable and leave the rest to the validator."""
    return tuple(value) if isinstance(value, list) else value


def _to_fixed(value: Mapping[str, str]) -> Mapping[str, str]:
    """Make a mapping unchangeable and leave the rest to the validator."""
    return MappingProxyType(dict(value)) if isinstance(value, dict) else value


@frozen(kw_only=True)
class ResctrlPluginConfig:
    """How the plugin behaves.

    Attributes:
        group_prefix: Every group of ours is named by the prefix and the pod's uid; the sweep at startup
            removes what carries it. At most 63 letters, digits, `_`, `.` and `-`, the first no `.` or `-`.
            It may be empty only when `cleanup_on_start` is false.
        cleanup_on_start: Sweep groups with our prefix once, before the first group is made.
        startup_policy: `clean`: the sweep takes all groups with our prefix. `adopt`: those of the pods that
            the runtime lists first stay, with their counters, and are the pods' groups from then on.
        auto_mount: Mount resctrl at startup where it is not mounted.
        class_placement: A container whose threads are in another control group than the default one gets a
            group of its pod below that one. Without it such threads are in no group of ours, and the
            container stays PARTIAL.
        max_groups: How many groups of ours there may be, so that RMIDs are left to others, up to 1,000,000;
            0: no limit.
        namespaces: Only pods of these namespaces get groups; empty: of all.
        pod_labels: Only pods that carry all of these labels, with these values, get groups.
        max_reconcile_passes: How often a container's threads are listed and assigned in one reconcile, at
            most, from 1 to 1000; it ends earlier once a pass finds nothing new.
        resctrl_root: Where resctrl is mounted.
        cgroup_root: Where cgroups are mounted; in a pod, the host's.

    Raises:
        ConfigError: A value is not usable; the message names the setting.
    """

    group_prefix: str = field(default="pod_", validator=_is_prefix)
    cleanup_on_start: bool = field(default=True, validator=_is_bool)
    startup_policy: StartupPolicy = field(default="clean", validator=_is_policy)
    auto_mount: bool = field(default=False, validator=_is_bool)
    class_placement: bool = field(default=True, validator=_is_bool)
    max_groups: int = field(default=0, validator=_is_count(0, _MAX_GROUPS))
    namespaces: tuple[str, ...] = field(default=(), converter=_to_tuple, validator=_are_namespaces)
    pod_labels: Mapping[str, str] = field(
        factory=dict, converter=_to_fixed, validator=_are_labels, hash=False
    )
    max_reconcile_passes: int = field(default=10, validator=_is_count(1, _MAX_PASSES))
    resctrl_root: Path = field(
        default=Path("/sys/fs/resctrl"), converter=_to_path, validator=_is_directory_name
    )
    cgroup_root: Path = field(
        default=Path("/sys/fs/cgroup"), converter=_to_path, validator=_is_directory_name
    )

    def __attrs_post_init__(self) -> None:
        if self.cleanup_on_start and not self.group_prefix:
            raise SettingError(
                "group_prefix",
                "an empty prefix would make the sweep at startup remove everybody's groups; "
                "give a prefix, or set cleanup_on_start to false",
            )

    @classmethod
    def from_yaml(
        cls, text: str, *, source: str = "configuration", base: ResctrlPluginConfig | None = None
    ) -> ResctrlPluginConfig:
        """Read settings from YAML.

        Args:
            text: A mapping of the fields above; an empty text changes nothing.
            source: What to call it in messages, such as the file's name.
            base: Where the settings that the text does not name come from; the defaults if None.

        Returns:
            The checked settings.

        Raises:
            ConfigError: The text is no such mapping, or a setting is unknown or not usable.
        """
        values, lines = _read(text, source)
        converter = Converter(forbid_extra_keys=True, detailed_validation=False)
        # cattrs would coerce; the validators of the fields are strict.
        for kind in (bool, int, str, Path):
            converter.register_structure_hook(kind, lambda value, _: value)
        converter.register_structure_hook_func(lambda kind: kind is not cls, lambda value, _: value)
        present = {each.name: getattr(base, each.name) for each in fields(cls)} if base is not None else {}
        try:
            return converter.structure(present | values, cls)
        except ForbiddenExtraKeysError as error:
            key = min(error.extra_fields, key=lambda name: lines[name])
            meant = get_close_matches(key.replace("-", "_"), [each.name for each in fields(cls)], n=1)
            hint = f"; did you mean {meant[0]!r}?" if meant else ""
            raise ConfigError(f"{source}:{lines[key]}: unknown key {key[:80]!r}{hint}") from error
        except SettingError as error:
            place = f"{source}:{lines[error.key]}" if error.key in lines else source
            raise ConfigError(f"{place}: {error}") from error

    @classmethod
    def from_file(cls, path: Path, *, base: ResctrlPluginConfig | None = None) -> ResctrlPluginConfig:
        """Read settings from a YAML file.

        Args:
            path: The file.
            base: As for `from_yaml`.

        Raises:
            ConfigError: The file cannot be read, or its content is refused.
        """
        try:
            with path.open("rb") as file:
                content = file.read(MAX_CONFIG_BYTES + 1)
            text = content.decode("utf-8")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: is not UTF-8 text") from error
        return cls.from_yaml(text, source=str(path), base=base)


def _read(text: str, source: str) -> tuple[dict[str, object], dict[str, int]]:
    """Return the values and the lines of a YAML mapping's keys."""
    if len(text.encode("utf-8", errors="replace")) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{source}: is longer than {MAX_CONFIG_BYTES} bytes")
    try:
        _refuse_bombs(text, source)
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None or root.tag == "tag:yaml.org,2002:null":
            return {}, {}
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(f"{source}: must be a mapping of settings, such as 'group_prefix: pod_'")
        values: dict[str, object] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in root.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"{source}:{line}: a setting's name must be plain text")
            key = str(key_node.value)
            if key in values:
                raise ConfigError(f"{source}:{line}: {key[:80]!r} is set twice")
            values[key] = loader.construct_object(value_node, deep=True)
            lines[key] = line
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{source}: is no YAML that is accepted here: {error}") from error
    return values, lines


def _refuse_bombs(text: str, source: str) -> None:
    """Refuse what can grow or recurse: aliases multiply content, and nesting multiplies calls."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        place = f"{source}:{event.start_mark.line + 1}" if event.start_mark is not None else source
        if getattr(event, "anchor", None) is not None:  # of a node, or the one that an alias repeats
            raise ConfigError(f"{place}: anchors and aliases are not accepted")
        if getattr(event, "tag", None) is not None:
            raise ConfigError(f"{place}: tags are not accepted")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise ConfigError(f"{place}: is nested too deeply")
