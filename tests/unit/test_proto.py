"""The trimmed .proto: a true part of upstream's, and the committed code is generated from it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nri_resctrl_plugin.nri import messages

ROOT = Path(__file__).resolve().parents[2]
GENERATE = ROOT / "tools" / "generate_proto.py"


def load_tool() -> Any:
    """Import the generator, which lies in no package."""
    spec = importlib.util.spec_from_file_location("generate_proto", GENERATE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tree(folder: Path) -> dict[str, str]:
    """Return the text of every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("betterproto2_compiler") is None
    or importlib.util.find_spec("grpc_tools") is None,
    reason="the compiler (dependency group proto) is not installed",
)


@needs_compiler
def test_the_committed_code_is_what_the_compiler_makes(tmp_path: Path) -> None:
    """A fresh generation of every source equals what is committed, file by file."""
    tool = load_tool()
    for index, source in enumerate(tool.SOURCES):
        fresh = tmp_path / str(index)
        tool.generate(source, fresh)
        assert tree(fresh) == tree(ROOT / source.package), f"run `nox -s proto`: {source.package} is stale"


def test_the_committed_code_says_where_it_comes_from() -> None:
    """Each generated package names its source, so that nobody edits it."""
    tool = load_tool()
    assert tool.SOURCES
    for source in tool.SOURCES:
        assert (ROOT / source.proto).is_file()
        assert source.proto.name in (ROOT / source.package / "__init__.py").read_text()


@pytest.fixture(scope="module")
def descriptor(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the parsed trimmed .proto."""
    pytest.importorskip("grpc_tools", reason="the compiler (dependency group proto) is not installed")
    from google.protobuf import descriptor_pb2  # type: ignore[import-untyped]  # noqa: PLC0415 - optional
    from grpc_tools import protoc  # noqa: PLC0415 - optional

    out = tmp_path_factory.mktemp("proto") / "set"
    folder = ROOT / "nri_resctrl_plugin" / "nri" / "api"
    assert protoc.main(["protoc", f"-I{folder}", f"--descriptor_set_out={out}", "nri.proto"]) == 0
    files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    return files.file[0]


UPSTREAM = json.loads((ROOT / "tests" / "data" / "nri_upstream_0_12.json").read_text())
# The one deliberate change of type; the wire format is the same.
ENCODED = {("SynchronizeRequest", "pods"), ("SynchronizeRequest", "containers")}


def described(field: Any) -> str:
    """Spell a field's type as the summary of upstream does."""
    kind = field.type_name.rpartition(".")[2] if field.type_name else field.Type.Name(field.type)[5:].lower()
    if kind.endswith("Entry"):
        return "map<string, string>"
    return f"repeated {kind}" if field.label == field.LABEL_REPEATED else str(kind)


def test_every_field_is_upstreams(descriptor: Any) -> None:
    """Message by message, each field has upstream's name, number and type, but for two that stay encoded."""
    assert descriptor.package == UPSTREAM["package"]
    compared = 0
    for message in descriptor.message_type:
        upstream = UPSTREAM["messages"][message.name]
        for field in message.field:
            number, kind = upstream[field.name]
            assert field.number == number, (message.name, field.name)
            if (message.name, field.name) in ENCODED:
                assert described(field) == "repeated bytes"
                assert kind in ("repeated PodSandbox", "repeated Container")
            else:
                assert described(field) == kind, (message.name, field.name)
            compared += 1
    assert compared > 40


def test_every_enum_value_is_upstreams(descriptor: Any) -> None:
    """Events and container states have upstream's numbers."""
    for enum in descriptor.enum_type:
        for value in enum.value:
            assert UPSTREAM["enums"][enum.name][value.name] == value.number


def test_every_call_is_upstreams(descriptor: Any) -> None:
    """Services and methods have upstream's names: they are what the wire carries."""
    for service in descriptor.service:
        for method in service.method:
            assert method.name in UPSTREAM["services"][service.name]
            assert not method.client_streaming
            assert not method.server_streaming


def test_the_mapper_knows_the_generated_fields(descriptor: Any) -> None:
    """What is passed over before decoding is exactly what the generated classes do not know."""
    numbers = {message.name: {field.number for field in message.field} for message in descriptor.message_type}
    assert numbers["PodSandbox"] == messages.POD_FIELDS
    assert numbers["Container"] == messages.CONTAINER_FIELDS


def test_both_delivery_styles_are_there(descriptor: Any) -> None:
    """Every event asked for has its own call, and StateChange is there for runtimes before 0.12."""
    (plugin,) = [service for service in descriptor.service if service.name == "Plugin"]
    assert {method.name for method in plugin.method} >= {
        "RunPodSandbox",
        "StopPodSandbox",
        "RemovePodSandbox",
        "StartContainer",
        "StopContainer",
        "RemoveContainer",
        "StateChange",
        "Configure",
        "Synchronize",
        "Shutdown",
    }


def test_importing_the_wire_does_not_need_the_compiler() -> None:
    """What ships runs without the build tools."""
    program = (
        "import sys, nri_resctrl_plugin.nri.api; "
        "sys.exit(bool({'betterproto2_compiler', 'grpc_tools', 'google.protobuf'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
