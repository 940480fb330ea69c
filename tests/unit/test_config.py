"""Settings are checked at the door, and every refusal names the place and the mend."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from nri_resctrl_plugin.config import MAX_CONFIG_BYTES, ResctrlPluginConfig, SettingError
from nri_resctrl_plugin.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable


def test_the_defaults_are_the_documented_ones() -> None:
    """No surprises: no mounting by itself, a sweep of our own prefix, all pods, ten passes."""
    assert ResctrlPluginConfig() == ResctrlPluginConfig(
        group_prefix="pod_",
        cleanup_on_start=True,
        startup_policy="clean",
        auto_mount=False,
        class_placement=True,
        max_groups=0,
        namespaces=(),
        pod_labels={},
        max_reconcile_passes=10,
        resctrl_root=Path("/sys/fs/resctrl"),
        cgroup_root=Path("/sys/fs/cgroup"),
    )


@pytest.mark.parametrize("text", ["", "\n# nothing\n", "---\n", "null", "{}"])
def test_an_empty_text_changes_nothing(text: str) -> None:
    """A file of comments is a configuration."""
    assert ResctrlPluginConfig.from_yaml(text) == ResctrlPluginConfig()


def test_every_setting_can_be_given() -> None:
    """YAML reaches each field, with its type."""
    text = """
    group_prefix: "e2e_"
    cleanup_on_start: false
    startup_policy: adopt
    auto_mount: true
    class_placement: false
    max_groups: 100
    namespaces: [default, "web-1"]
    pod_labels:
      app.kubernetes.io/name: web
      tier: "1"
    max_reconcile_passes: 3
    resctrl_root: /mnt/resctrl
    cgroup_root: /host/sys/fs/cgroup
    """
    assert ResctrlPluginConfig.from_yaml(text) == ResctrlPluginConfig(
        group_prefix="e2e_",
        cleanup_on_start=False,
        startup_policy="adopt",
        auto_mount=True,
        class_placement=False,
        max_groups=100,
        namespaces=("default", "web-1"),
        pod_labels={"app.kubernetes.io/name": "web", "tier": "1"},
        max_reconcile_passes=3,
        resctrl_root=Path("/mnt/resctrl"),
        cgroup_root=Path("/host/sys/fs/cgroup"),
    )


def test_a_text_overlays_a_base() -> None:
    """What the text does not name stays as it was."""
    base = ResctrlPluginConfig(group_prefix="a_", auto_mount=True)
    assert ResctrlPluginConfig.from_yaml("group_prefix: b_", base=base) == ResctrlPluginConfig(
        group_prefix="b_", auto_mount=True
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n\ngroup_prefx: x\n", r"c\.yaml:3: unknown key 'group_prefx'; did you mean 'group_prefix'\?"),
        ("group-prefix: x", r"c\.yaml:1: unknown key 'group-prefix'; did you mean 'group_prefix'\?"),
        ("zzz: 1", r"c\.yaml:1: unknown key 'zzz'$"),
        ("a: 1\nb: 2", r"c\.yaml:1: unknown key 'a'"),
        ("<<: {group_prefix: x}", r"unknown key '<<'"),
        ("? [a, b]\n: 1", r"c\.yaml:1: a setting's name must be plain text"),
        ("group_prefix: a_\ngroup_prefix: b_", r"c\.yaml:2: 'group_prefix' is set twice"),
        ("auto_mount: 1", r"c\.yaml:1: auto_mount: must be true or false, not 1"),
        ("auto_mount: 'true'", r"must be true or false, not 'true'"),
        ("max_reconcile_passes: true", r"must be a whole number, not True"),
        ("max_reconcile_passes: '3'", r"must be a whole number, not '3'"),
        ("max_reconcile_passes: 1.0", r"must be a whole number, not 1\.0"),
        ("max_reconcile_passes: 0", r"must be between 1 and 1000"),
        ("max_reconcile_passes: -1", r"must be between 1 and 1000"),
        ("max_reconcile_passes: 1001", r"must be between 1 and 1000"),
        ("startup_policy: keep", r"startup_policy: must be clean or adopt, not 'keep'"),
        ("startup_policy: [clean]", r"must be clean or adopt, not \['clean'\]"),
        ("class_placement: 'no'", r"class_placement: must be true or false"),
        ("max_groups: -1", r"max_groups: must be between 0 and 1000000"),
        ("max_groups: 0.5", r"max_groups: must be a whole number, not 0\.5"),
        ("namespaces: default", r"namespaces: must be a list of namespaces, not 'default'"),
        ("namespaces:", r"namespaces: must be a list of namespaces, not None"),
        ("namespaces: {a: b}", r"namespaces: must be a list"),
        ("namespaces: [1]", r"namespaces: 1 is no namespace of Kubernetes"),
        ("namespaces: [Web]", r"namespaces: 'Web' is no namespace"),
        ("namespaces: ['']", r"namespaces: '' is no namespace"),
        ("pod_labels: app", r"pod_labels: must be a mapping of labels to values, not 'app'"),
        ("pod_labels:", r"pod_labels: must be a mapping of labels to values, not None"),
        ("pod_labels: {a: true}", r"pod_labels: the value of 'a' must be text, not True; quote it"),
        ("pod_labels: {1: b}", r"pod_labels: 1 is no label's name"),
        ("pod_labels: {'': b}", r"pod_labels: '' is no label's name"),
        ("group_prefix:", r"group_prefix: must be text, not None"),
        ("group_prefix: 10", r"group_prefix: must be text, not 10; put it in quotes"),
        ("group_prefix: ''", r"an empty prefix would make the sweep"),
        ("group_prefix: a/b", r"may hold at most 63 letters"),
        ("group_prefix: ..", r"may hold at most 63 letters"),
        ('group_prefix: "a\\n"', r"may hold at most 63 letters"),
        ("group_prefix: " + "x" * 64, r"may hold at most 63 letters"),
        ("resctrl_root: 5", r"resctrl_root: must be a path, not 5"),
        ("resctrl_root: sys", r"resctrl_root: must be an absolute path"),
        ("cgroup_root: /sys/../etc", r"cgroup_root: must be an absolute path"),
        ('cgroup_root: "/a\\0b"', r"cgroup_root: must be an absolute path"),
        ("- group_prefix", r"c\.yaml: must be a mapping"),
        ("pod_", r"c\.yaml: must be a mapping"),
        ("a: 1\n---\nb: 1", r"c\.yaml: is no YAML that is accepted here"),
        ("\t", r"is no YAML that is accepted here"),
        ("\x00", r"is no YAML that is accepted here"),
        ("group_prefix: 2026-99-99", r"is no YAML that is accepted here"),
        ("max_reconcile_passes: " + "9" * 5000, r"is no YAML that is accepted here"),
        ("a: &x 1", r"c\.yaml:1: anchors and aliases are not accepted"),
        ("\na: [&x {}, *x]", r"c\.yaml:2: anchors and aliases are not accepted"),
        ("!!python/object:os.system {}", r"c\.yaml:1: tags are not accepted"),
        ("auto_mount: !!bool foo", r"c\.yaml:1: tags are not accepted"),
        ("[" * 5000, r"is nested too deeply"),
        ("a: {" * 5000, r"is nested too deeply"),
        ("x" * (MAX_CONFIG_BYTES + 1), r"is longer than 65536 bytes"),
    ],
)
def test_what_cannot_be_used_is_refused_with_place_and_mend(text: str, message: str) -> None:
    """Each mistake gets its own sentence, with the file and, where there is one, the line."""
    with pytest.raises(ConfigError, match=message):
        ResctrlPluginConfig.from_yaml(text, source="c.yaml")


def test_an_empty_prefix_is_fine_where_nothing_is_swept() -> None:
    """Only the sweep makes an empty prefix dangerous."""
    config = ResctrlPluginConfig.from_yaml("group_prefix: ''\ncleanup_on_start: false")
    assert config.group_prefix == ""


@pytest.mark.parametrize(
    "make",
    [
        lambda: ResctrlPluginConfig(group_prefix=""),
        lambda: ResctrlPluginConfig(group_prefix=5),  # type: ignore[arg-type]
        lambda: ResctrlPluginConfig(auto_mount=0),  # type: ignore[arg-type]
        lambda: ResctrlPluginConfig(max_reconcile_passes=0),
        lambda: ResctrlPluginConfig(max_reconcile_passes=True),
        lambda: ResctrlPluginConfig(startup_policy="keep"),  # type: ignore[arg-type]
        lambda: ResctrlPluginConfig(max_groups=True),
        lambda: ResctrlPluginConfig(namespaces="web"),  # type: ignore[arg-type]
        lambda: ResctrlPluginConfig(pod_labels=("a",)),  # type: ignore[arg-type]
        lambda: ResctrlPluginConfig(resctrl_root=None),  # type: ignore[arg-type]
        lambda: ResctrlPluginConfig(cgroup_root=Path("relative")),
    ],
)
def test_the_constructor_is_a_door_too(make: Callable[[], object]) -> None:
    """Whoever holds a configuration holds a valid one; the error names the setting."""
    with pytest.raises(SettingError) as caught:
        make()
    assert str(caught.value).startswith(f"{caught.value.key}: ")
    assert isinstance(caught.value, ValueError)


@given(
    st.text(max_size=200)
    | st.lists(
        st.sampled_from(
            ["group_prefix", "auto_mount", ":", " ", "\n", "- ", "{", "[", "&a ", "*a", "'", "!!"]
        )
    ).map("".join)
)
def test_no_text_gets_another_answer_than_a_configuration_or_a_config_error(text: str) -> None:
    """Hostile text raises nothing else."""
    with contextlib.suppress(ConfigError):
        ResctrlPluginConfig.from_yaml(text)


def test_a_configuration_cannot_be_changed_from_outside() -> None:
    """What was given is copied, and it serves as a key as before."""
    labels, namespaces = {"app": "web"}, ["a"]
    config = ResctrlPluginConfig(pod_labels=labels, namespaces=namespaces)
    labels["app"] = "other"
    namespaces.append("b")
    assert (config.pod_labels, config.namespaces) == ({"app": "web"}, ("a",))
    assert len({config, evolve(config), ResctrlPluginConfig()}) == 2
    with pytest.raises(TypeError):
        config.pod_labels["x"] = "y"  # type: ignore[index]


def test_a_file_is_read_with_its_name_in_messages(tmp_path: Path) -> None:
    """A file is read whole, and refusals say which file and where in it."""
    path = tmp_path / "plugin.yaml"
    path.write_text("group_prefix: a_\n")
    assert ResctrlPluginConfig.from_file(path).group_prefix == "a_"
    path.write_text("\nauto_mont: true\n")
    with pytest.raises(
        ConfigError, match=r"plugin\.yaml:2: unknown key 'auto_mont'; did you mean 'auto_mount'\?"
    ):
        ResctrlPluginConfig.from_file(path)


def test_a_file_that_cannot_be_read_is_a_config_error(tmp_path: Path) -> None:
    """Absent, a directory, not text, endless: all say so."""
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read: No such file"):
        ResctrlPluginConfig.from_file(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        ResctrlPluginConfig.from_file(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        ResctrlPluginConfig.from_file(tmp_path / "binary")
    with pytest.raises(ConfigError, match="is longer than"):
        ResctrlPluginConfig.from_file(Path("/dev/zero"))
