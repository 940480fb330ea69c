"""What is shipped for nodes: it is valid, asks for no more than it says, and its settings are ours."""

from __future__ import annotations

import copy
import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from attrs import evolve
from jsonschema import Draft202012Validator

from nri_resctrl_plugin.cli import main
from nri_resctrl_plugin.cli.exits import Exit
from nri_resctrl_plugin.config import ResctrlPluginConfig

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "docs/deploy"
KUBERNETES = DEPLOY / "kubernetes"
RENDERED = {"base": KUBERNETES / "install.yaml", "auto-mount": KUBERNETES / "install-auto-mount.yaml"}
SCHEMAS = sorted((ROOT / "tests/data/kubernetes").glob("*.json"))
CONFIG_FILES = [*sorted(KUBERNETES.glob("*/config.yaml")), DEPLOY / "systemd/nri-resctrl-plugin.yaml"]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def tool(*names: str) -> str:
    """Return the first of these programs that is here. In CI all are: there, nothing is skipped."""
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        complain = pytest.fail if os.environ.get("CI") else pytest.skip
        complain(f"there is no {' nor '.join(names)} here")
    return found


def objects(name: str) -> dict[str, dict[str, Any]]:
    """Return what one way of installing consists of, by kind."""
    return {each["kind"]: each for each in yaml.safe_load_all(RENDERED[name].read_text())}


def complaints(schema: Path, thing: dict[str, Any]) -> list[str]:
    """Return what a version of Kubernetes would say against an object."""
    whole = json.loads(schema.read_text())
    assert thing["kind"] in whole["$defs"]
    validator = Draft202012Validator(whole | {"$ref": f"#/$defs/{thing['kind']}"})
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(thing)]


def container(name: str = "base") -> dict[str, Any]:
    """Return the one container of the DaemonSet."""
    (only,) = objects(name)["DaemonSet"]["spec"]["template"]["spec"]["containers"]
    whole: dict[str, Any] = only
    return whole


class TestSchemas:
    """The committed manifests against the API of the oldest and the newest Kubernetes."""

    def test_there_are_two(self) -> None:
        """The oldest version with every field that is used, and a recent one."""
        assert [path.stem for path in SCHEMAS] == ["v1.30", "v1.37"]

    @pytest.mark.parametrize("name", RENDERED)
    @pytest.mark.parametrize("schema", SCHEMAS, ids=lambda path: path.stem)
    def test_every_object_is_valid(self, schema: Path, name: str) -> None:
        """Not a field too many, none of another type."""
        found = objects(name)
        assert set(found) == {"Namespace", "ConfigMap", "DaemonSet"}
        assert [text for thing in found.values() for text in complaints(schema, thing)] == []

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda pod: pod.update(hostPid=True),  # a typo
            lambda pod: pod.update(hostPID="yes"),
            lambda pod: pod["containers"][0].update(capabilities={"drop": ["ALL"]}),  # at the wrong level
            lambda pod: pod["containers"][0]["securityContext"]["capabilities"].update(drop="ALL"),
            lambda pod: pod["containers"][0]["securityContext"].update(appArmorProfile="Unconfined"),
            lambda pod: pod["containers"][0]["volumeMounts"][0].pop("mountPath"),
            lambda pod: pod["volumes"][1].update(hostPath="/var/run/nri"),
            lambda pod: pod["containers"][0].pop("name"),
            lambda pod: pod["tolerations"].append("Exists"),
        ],
    )
    @pytest.mark.parametrize("schema", SCHEMAS, ids=lambda path: path.stem)
    def test_a_mistake_is_found(self, schema: Path, spoil: Callable[[dict[str, Any]], object]) -> None:
        """The check bites, at any depth."""
        spoiled = copy.deepcopy(objects("base")["DaemonSet"])
        spoil(spoiled["spec"]["template"]["spec"])
        assert complaints(schema, spoiled)

    @pytest.mark.parametrize("name", RENDERED)
    def test_what_is_committed_is_what_kustomize_makes(self, name: str) -> None:
        """The rendered file is the folder's; `kubectl kustomize FOLDER` writes it anew."""
        program = tool("kubectl", "kustomize")
        verb = "kustomize" if Path(program).name == "kubectl" else "build"
        made = subprocess.run(
            [program, verb, str(KUBERNETES / name)], check=True, capture_output=True, text=True
        )
        assert list(yaml.safe_load_all(made.stdout)) == list(yaml.safe_load_all(RENDERED[name].read_text()))


class TestWhatThePodMayDo:
    """The least that works, and where it is more the reason stands in the overlay's name."""

    def test_one_capability(self) -> None:
        """Every capability is dropped but the one for resctrl's directories."""
        context = container()["securityContext"]
        assert context["capabilities"] == {"drop": ["ALL"], "add": ["DAC_OVERRIDE"]}
        assert context["privileged"] is False
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert (context["runAsUser"], context["runAsGroup"]) == (0, 0)

    def test_auto_mount_adds_the_other_and_nothing_else(self) -> None:
        """The overlay differs in one capability and one setting."""
        assert container("auto-mount")["securityContext"]["capabilities"]["add"] == [
            "DAC_OVERRIDE",
            "SYS_ADMIN",
        ]
        base, more = objects("base"), objects("auto-mount")
        container_of = more["DaemonSet"]["spec"]["template"]["spec"]["containers"][0]
        container_of["securityContext"]["capabilities"]["add"].remove("SYS_ADMIN")
        name = base["ConfigMap"]["metadata"]["name"]
        assert more["ConfigMap"]["metadata"]["name"] != name, "other settings restart the pods"
        assert (
            json.loads(json.dumps(more["DaemonSet"]).replace(more["ConfigMap"]["metadata"]["name"], name))
            == (base["DaemonSet"])
        )
        settings = ResctrlPluginConfig.from_yaml(_plugin_part(more))
        assert evolve(settings, auto_mount=False) == ResctrlPluginConfig.from_yaml(_plugin_part(base))
        assert settings.auto_mount

    def test_the_machines_namespaces(self) -> None:
        """The machine's pids and, by not leaving it, its user namespace; neither its network nor its ipc."""
        pod = objects("base")["DaemonSet"]["spec"]["template"]["spec"]
        assert pod["hostPID"] is True
        assert not {"hostUsers", "hostNetwork", "hostIPC", "serviceAccountName"} & set(pod)
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False

    def test_what_it_sees_of_the_machine(self) -> None:
        """Three directories, never a socket or a file; only resctrl and NRI for writing."""
        pod = objects("base")["DaemonSet"]["spec"]["template"]["spec"]
        host = {each["name"]: each["hostPath"] for each in pod["volumes"] if "hostPath" in each}
        assert {name: each["path"] for name, each in host.items()} == {
            "nri": "/var/run/nri", "resctrl": "/sys/fs/resctrl", "cgroup": "/sys/fs/cgroup",
        }  # fmt: skip
        assert {each["type"] for each in host.values()} == {"Directory"}
        mounts = {each["name"]: each for each in pod["containers"][0]["volumeMounts"]}
        assert {name for name, each in mounts.items() if not each.get("readOnly")} == {"nri", "resctrl"}
        assert mounts["resctrl"]["mountPropagation"] == "HostToContainer"
        settings = ResctrlPluginConfig.from_yaml(_plugin_part(objects("base")))
        assert str(settings.cgroup_root) == mounts["cgroup"]["mountPath"]
        assert str(settings.resctrl_root) == mounts["resctrl"]["mountPath"]

    def test_one_port(self) -> None:
        """Metrics, probes and the scrape's annotations agree with the settings."""
        (text,) = objects("base")["ConfigMap"]["data"].values()
        template = objects("base")["DaemonSet"]["spec"]["template"]
        (port,) = container()["ports"]
        assert yaml.safe_load(text)["health_addr"] == f":{port['containerPort']}"
        assert template["metadata"]["annotations"]["prometheus.io/port"] == str(port["containerPort"])
        probes = {name: container()[name]["httpGet"] for name in ("livenessProbe", "readinessProbe")}
        assert probes == {
            "livenessProbe": {"path": "/livez", "port": port["name"]},
            "readinessProbe": {"path": "/readyz", "port": port["name"]},
        }

    def test_the_namespace_allows_it(self) -> None:
        """Pod Security would refuse the pod at any stricter level."""
        labels = objects("base")["Namespace"]["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "privileged"

    def test_the_image_is_of_this_version(self) -> None:
        """Who releases changes it here too."""
        assert container()["image"] == f"nri-resctrl-plugin:{VERSION}"


def _plugin_part(found: dict[str, dict[str, Any]]) -> str:
    """Return the plugin's own settings of a ConfigMap: what the program reads besides is left out."""
    (text,) = found["ConfigMap"]["data"].values()
    ours = {each.name for each in ResctrlPluginConfig.__attrs_attrs__}
    return yaml.safe_dump({key: value for key, value in yaml.safe_load(text).items() if key in ours})


@pytest.mark.parametrize("file", CONFIG_FILES, ids=lambda path: path.parent.name)
def test_the_program_takes_the_settings(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every key is known and every value accepted: it gets as far as finding nobody to talk to."""
    arguments = ["--resctrl=fake", "--exit-on-disconnect", f"--socket-path={tmp_path}/none"]
    arguments += ["--health-addr=127.0.0.1:0"] if "health_addr" in file.read_text() else []
    assert main(["run", "--config", str(file), *arguments], {}) == Exit.LOST
    assert "no socket at" in capsys.readouterr().err


def test_the_daemonset_runs_the_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its arguments are flags that exist, and its configuration stands where they say."""
    arguments = container()["args"]
    (mount,) = [each for each in container()["volumeMounts"] if each["name"] == "config"]
    assert arguments == ["run", f"--config={mount['mountPath']}/config.yaml"]
    there = [arguments[0], f"--config={KUBERNETES}/base/config.yaml", "--health-addr=127.0.0.1:0"]
    assert (
        main([*there, "--resctrl=fake", "--exit-on-disconnect", f"--socket-path={tmp_path}/x"], {})
        == Exit.LOST
    )
    assert "no socket at" in capsys.readouterr().err


class TestSystemd:
    """The unit that runs it beside the runtime."""

    unit = DEPLOY / "systemd/nri-resctrl-plugin.service"
    mount = DEPLOY / "systemd/sys-fs-resctrl.mount"

    def directives(self, file: Path | None = None) -> dict[str, list[str]]:
        """Return what a unit says, each line whole."""
        found: dict[str, list[str]] = {}
        for line in (file or self.unit).read_text().splitlines():
            assert line == line.strip()
            if line and not line.startswith(("#", "[")):
                key, _, value = line.partition("=")
                assert re.fullmatch("[A-Z][A-Za-z]+", key), line
                found.setdefault(key, []).append(value)
        return found

    def test_it_may_do_one_thing(self) -> None:
        """One capability, and the machine's processes in sight: what hides them is not used."""
        said = self.directives()
        assert said["CapabilityBoundingSet"] == ["CAP_DAC_OVERRIDE"]
        assert said["ReadWritePaths"] == ["/sys/fs/resctrl"]
        assert said["RestrictAddressFamilies"] == ["AF_UNIX"]
        for key in (
            "NoNewPrivileges",
            "ProtectHome",
            "PrivateDevices",
            "RestrictNamespaces",
            "PrivateMounts",
        ):
            assert said[key] == ["yes"], key
        assert not {"ProtectProc", "ProcSubset", "PrivateUsers", "PrivatePIDs", "User", "DynamicUser"} & set(
            said
        )

    def test_its_command_is_one_of_ours(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Its flags exist, its settings are read, and what it writes to is made by systemd."""
        said = self.directives()
        (command,) = said["ExecStart"]
        program, *arguments = shlex.split(command)
        assert program == "/opt/nri-resctrl-plugin/10-resctrl"
        assert "/run/" + said["RuntimeDirectory"][0] + "/" in command
        assert "/var/log/" + said["LogsDirectory"][0] + "/" in command
        moved = [
            text.replace("/etc/", f"{DEPLOY}/systemd/")
            .replace("/run/nri-resctrl-plugin", str(tmp_path))
            .replace("/var/log/nri-resctrl-plugin", str(tmp_path))
            for text in arguments
        ]
        more = ["--resctrl=fake", "--exit-on-disconnect", f"--socket-path={tmp_path}/none"]
        assert main([*moved, *more], {}) == Exit.LOST
        assert "no socket at" in capsys.readouterr().err

    def test_it_does_not_restart_where_that_is_no_use(self) -> None:
        """What is wrong with the machine or the settings is wrong the next time too."""
        statuses = {int(text) for text in self.directives()["RestartPreventExitStatus"][0].split()}
        assert statuses == {Exit.USAGE, Exit.UNSUPPORTED, Exit.PERMISSION, Exit.CONFIG}

    def test_the_mount(self) -> None:
        """A mount unit has the name of its place."""
        said = self.directives(self.mount)
        assert said["Where"] == ["/sys/fs/resctrl"]
        assert self.mount.stem == said["Where"][0].strip("/").replace("/", "-")
        assert said["Type"] == said["What"] == ["resctrl"]

    def test_systemd_accepts_them(self, tmp_path: Path) -> None:
        """`systemd-analyze verify` has nothing to say, and finds a mistake where there is one."""
        program = tool("systemd-analyze")
        there = tmp_path / self.unit.name
        text = self.unit.read_text()
        # The program is not installed here.
        there.write_text(re.sub("^ExecStart=[^ ]*", "ExecStart=/bin/true", text, flags=re.MULTILINE))
        shutil.copy(self.mount, tmp_path)
        command = [program, "verify", str(there), str(tmp_path / self.mount.name)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        ours = [line for line in done.stderr.splitlines() if "resctrl" in line]  # it reads others too
        assert (done.returncode, ours) == (0, [])
        there.write_text(there.read_text().replace("Restart=on-failure", "Restart=on-failures"))
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert "on-failures" in done.stderr

    def test_systemd_finds_it_safe(self) -> None:
        """An exposure of at most 1.5 of 10, without starting anything."""
        command = [tool("systemd-analyze"), "security", "--no-pager", "--offline=yes", "--threshold=15"]
        done = subprocess.run([*command, str(self.unit)], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_is_made_of_what_is_there() -> None:
    """The Dockerfile copies paths that exist, ends as root, and starts the program, which stands in PATH."""
    lines = (KUBERNETES / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    copied = [
        words.split()[:-1] for step, words in steps if step == "COPY" and not words.startswith("--from")
    ]
    assert all((ROOT / path).exists() for paths in copied for path in paths)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    assert {path for paths in copied for path in paths} >= {
        *packages["packages"],
        "pyproject.toml",
        "README.md",
    }
    assert [words for step, words in steps if step == "USER"] == ["0:0"]
    assert [words for step, words in steps if step == "ENTRYPOINT"] == [
        '["/opt/nri-resctrl-plugin/bin/nri-resctrl-plugin"]'
    ]
    set_last = [words for step, words in steps if step == "ENV"][-1]
    assert "PATH=/opt/nri-resctrl-plugin/bin:$PATH" in set_last.split()  # for `kubectl exec`
    assert len([words for step, words in steps if step == "FROM" and words.startswith("${PYTHON}")]) == 2


def test_the_apparmor_profile() -> None:
    """It allows what the plugin does and denies mounting; `apparmor_parser` reads it where there is one."""
    profile = DEPLOY / "apparmor/nri-resctrl-plugin"
    text = profile.read_text()
    for rule in ("capability dac_override,", "/sys/fs/resctrl/** rw,", "deny mount,", "ptrace read,"):
        assert rule in text
    assert text.count("capability") == 1
    program = shutil.which("apparmor_parser")
    if program is not None:
        subprocess.run([program, "--skip-kernel-load", "--skip-cache", str(profile)], check=True)
