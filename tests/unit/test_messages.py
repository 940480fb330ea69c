"""From messages to values, whatever the messages hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nri_resctrl_plugin.demo.encode import container_message, pod_message
from nri_resctrl_plugin.nri import api, messages
from nri_resctrl_plugin.nri.messages import Container, ContainerStatus, PodSandbox, RuntimeInfo
from nri_resctrl_plugin.nri.wire import WireError, bytes_field, int_field

if TYPE_CHECKING:
    from collections.abc import Callable

text = st.text(st.characters(codec="utf-8"), max_size=30)
labels = st.dictionaries(text, text, max_size=4)
pids = st.integers(0, (1 << 31) - 1)
pods = st.builds(
    PodSandbox,
    id=text.filter(bool),
    uid=text,
    name=text,
    namespace=text,
    labels=labels,
    pid=pids,
    cgroup_parent=text,
    cgroups_path=text,
)
containers = st.builds(
    Container,
    id=text.filter(bool),
    pod_sandbox_id=text,
    name=text,
    state=st.sampled_from(ContainerStatus),
    labels=labels,
    pid=pids,
    cgroups_path=text,
    clos_id=st.none() | text,
    enable_monitoring=st.booleans(),
)


@given(pods)
def test_a_pod_comes_back(pod: PodSandbox) -> None:
    """What a runtime would send of a pod is read as the same pod, hostile text included."""
    assert messages.decode_pod(bytes(pod_message(pod))) == pod


@given(containers)
def test_a_container_comes_back(container: Container) -> None:
    """What a runtime would send of a container is read as the same container."""
    assert messages.decode_container(bytes(container_message(container))) == container


def test_absent_and_empty_are_none() -> None:
    """No pod and an empty pod (containerd, when the sandbox is gone) both say nothing."""
    assert messages.pod_value(None) is None
    assert messages.pod_value(api.PodSandbox()) is None
    assert messages.pod_value(api.PodSandbox(uid="u")) is None
    assert messages.container_value(None) is None
    assert messages.container_value(api.Container(name="c")) is None
    assert messages.decode_pod(b"") is None
    assert messages.decode_container(b"") is None


def test_what_is_not_told_is_empty() -> None:
    """A message with an id alone gives defaults, not errors."""
    assert messages.pod_value(api.PodSandbox(id="s")) == PodSandbox(id="s")
    assert messages.container_value(api.Container(id="c")) == Container(id="c")
    assert messages.container_value(api.Container(id="c", linux=api.LinuxContainer())) == Container(id="c")


@pytest.mark.parametrize(
    ("rdt", "clos_id", "monitored"),
    [
        (None, None, False),
        (api.LinuxRdt(), None, False),
        (api.LinuxRdt(clos_id=api.OptionalString()), "", False),
        (api.LinuxRdt(clos_id=api.OptionalString(value="gold")), "gold", False),
        (api.LinuxRdt(enable_monitoring=api.OptionalBool()), None, False),
        (api.LinuxRdt(enable_monitoring=api.OptionalBool(value=True)), None, True),
    ],
)
def test_rdt(rdt: api.LinuxRdt | None, clos_id: str | None, *, monitored: bool) -> None:
    """An explicit empty class differs from none; monitoring is what its wrapper holds, not its presence."""
    container = messages.container_value(api.Container(id="c", linux=api.LinuxContainer(rdt=rdt)))
    assert container is not None
    assert (container.clos_id, container.enable_monitoring) == (clos_id, monitored)


def test_an_unknown_state_is_unknown() -> None:
    """A state that a newer runtime adds does not fail the container."""
    data = bytes_field(1, b"c") + int_field(4, 77)
    assert messages.decode_container(data) == Container(id="c")


def test_values_of_the_wrong_type_are_absent() -> None:
    """The generated code hands on a varint where a string belongs; the value never shows it."""
    data = bytes_field(1, b"c") + int_field(2, 7) + int_field(3, 7) + int_field(11, 7) + bytes_field(12, b"x")
    assert messages.decode_container(data) == Container(id="c")
    assert messages.decode_container(int_field(1, 7)) is None
    assert messages.decode_pod(bytes_field(1, b"s") + int_field(3, 7) + int_field(8, 1)) == PodSandbox(id="s")
    nested = bytes_field(11, bytes_field(12, int_field(1, 1) + int_field(3, 1)))
    assert messages.decode_container(bytes_field(1, b"c") + nested) == Container(id="c")
    part = api.SynchronizeRequest.parse(int_field(1, 5) + bytes_field(1, b"p"))
    assert messages.sync_parts(part) == ([b"p"], [], False)


@pytest.mark.parametrize("pid", [1 << 31, (1 << 32) - 1, (1 << 64) - 1])
def test_pids_that_cannot_be_are_unknown(pid: int) -> None:
    """No Linux pid exceeds 31 bits; 0 is never taken for a pid either."""
    container = messages.decode_container(bytes_field(1, b"c") + int_field(12, pid))
    assert container == Container(id="c")


def test_a_cut_message_is_refused() -> None:
    """Every cut of a pod inside a field is an error, and one between fields a pod with less in it."""
    whole = bytes(pod_message(PodSandbox(id="sandbox", uid="uid", name="name", labels={"k": "v"}, pid=4)))
    refused = 0
    for size in range(len(whole)):
        try:
            messages.decode_pod(whole[:size])
        except WireError:
            refused += 1
    assert refused > len(whole) / 2
    with pytest.raises(WireError):
        messages.decode_pod(b"\x0a\x02\xff\xfe")


@pytest.mark.parametrize(
    ("milliseconds", "request_timeout"), [(0, 2.0), (-5, 2.0), (2000, 2.0), (750, 0.75), (60_000, 60.0)]
)
def test_configure(milliseconds: int, request_timeout: float) -> None:
    """Configure gives the runtime's identity; NRI before 0.7 tells no timeouts."""
    request = api.ConfigureRequest(
        runtime_name="cri-o",
        runtime_version="1.34.0",
        NRI_version="(devel)",
        request_timeout=milliseconds,
        registration_timeout=milliseconds,
        config="a: b",
    )
    assert messages.runtime_value(request) == RuntimeInfo(
        name="cri-o",
        version="1.34.0",
        nri_version="(devel)",
        request_timeout=request_timeout,
        registration_timeout=request_timeout if milliseconds > 0 else 5.0,
        config="a: b",
    )


def test_labels_cannot_be_changed() -> None:
    """Values are frozen all the way."""
    pod = messages.decode_pod(bytes(pod_message(PodSandbox(id="s", labels={"a": "b"}))))
    assert pod is not None
    assert dict(pod.labels) == {"a": "b"}
    with pytest.raises(TypeError):
        pod.labels["a"] = "c"  # type: ignore[index]
    assert hash(pod) == hash(PodSandbox(id="s"))


def test_a_label_without_a_value_is_empty() -> None:
    """A map entry may leave out its value, its key, or hold nonsense in their place."""
    entries = bytes_field(5, bytes_field(1, b"k")) + bytes_field(5, bytes_field(2, b"v"))
    pod = messages.decode_pod(bytes_field(1, b"s") + entries)
    assert pod is not None
    assert dict(pod.labels) == {"k": "", "": "v"}


@pytest.mark.parametrize("decode", [messages.decode_pod, messages.decode_container])
@settings(max_examples=300)
@given(
    data=st.binary(max_size=120)
    | st.lists(
        st.one_of(
            st.builds(int_field, st.integers(1, 14), st.integers(0, 300)),
            st.builds(bytes_field, st.integers(1, 14), st.binary(max_size=20)),
        ),
        max_size=10,
    ).map(b"".join)
)
def test_arbitrary_bytes_raise_nothing_but_the_typed_error(
    decode: Callable[[bytes], PodSandbox | Container | None], data: bytes
) -> None:
    """Whatever a runtime lists becomes a value with the promised types, None, or a WireError."""
    try:
        value = decode(data)
    except WireError:
        return
    if value is not None:
        assert value.id
        assert isinstance(value.id, str)
        assert isinstance(value.name, str)
        assert isinstance(value.cgroups_path, str)
        assert type(value.pid) is int
        assert all(isinstance(part, str) for pair in value.labels.items() for part in pair)
