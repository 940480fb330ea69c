"""A containerd of the lane's own: private directories, sockets and cgroups; started, killed, swept.

Owns: the daemon's configuration and life. Must not know: pods, the plugin.

Rules:
    1. All that is the lane's bears its name: a directory, and a cgroup of that name at the top of each
       hierarchy. `sweep` ends what bears it.
    2. A restart is the same daemon again: same directories, same sockets, same pods.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from grpclib.exceptions import GRPCError

from tests.e2e import observer, runc_wrapper
from tests.e2e.cri import CriClient
from tests.e2e.image import write_image
from tests.e2e.sweep import PREFIX, directory_of, sweep
from tests.e2e.waiting import until

if TYPE_CHECKING:
    from tests.e2e.packages import Tools

__all__ = ["IMAGE", "Containerd", "View", "obstacle"]

IMAGE = "localhost/nri-e2e/busybox:1"
"""The one image: sandbox and workload. Nobody serves that name, so a missing import fails at once."""

CONFIG = """\
version = 2
root = "{directory}/root"
state = "{directory}/state"
[grpc]
  address = "{directory}/c.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{directory}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  # A root without CAP_SYS_RESOURCE, as in a sandbox, may not lower the score of the pause process.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{directory}/cni/bin"
    conf_dir = "{directory}/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    # Copies two megabytes and works on every file system; overlayfs does not on another overlayfs.
    snapshotter = "native"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "{runc}"
      Root = "{directory}/runc"
[plugins."io.containerd.nri.v1.nri"]
  disable = false
  disable_connections = false
  socket_path = "{directory}/nri.sock"
  plugin_path = "{directory}/nri/plugins"
  plugin_config_path = "{directory}/nri/conf.d"
"""

UNIFIED_ONLY = """\
umount -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec "$@"
"""


class View(Enum):
    """How the cgroup world looks to a containerd."""

    MACHINE = "machine"
    """As it is on this machine: v1 hybrid or pure v2; cgroup paths as containerd makes them."""
    SLICES = "slices"
    """With systemd-shaped parents, each expanded to the directories that systemd would make."""
    LITERAL = "literal"
    """With systemd-shaped parents on a machine without systemd: runc takes the whole text for one name."""
    UNIFIED = "unified"
    """Pure v2: in a mount namespace of its own where only the unified hierarchy is mounted."""


class Containerd:
    """One daemon. Start it, give tests its sockets, and `close()` it whatever happened.

    Attributes:
        name: The lane's name; also the first element of every cgroup path of its pods.
        directory: Everything that it writes.
        socket: CRI and containerd's own services.
        nri_socket: Where plugins connect.
        view: How it sees cgroups.
    """

    def __init__(self, tools: Tools, view: View = View.MACHINE) -> None:
        self.name = f"{PREFIX}{secrets.token_hex(4)}"
        self.view = view
        # Not pytest's tmp_path: a socket's path must stay under 108 bytes.
        self.directory = directory_of(self.name)
        self.directory.mkdir(mode=0o711)
        (self.directory / "owner").write_text(str(os.getpid()))
        self.socket = self.directory / "c.sock"
        self.nri_socket = self.directory / "nri.sock"
        self._tools = tools
        self._process: subprocess.Popen[bytes] | None = None
        self._config = self.directory / "config.toml"
        self._config.write_text(CONFIG.format(directory=self.directory, image=IMAGE, runc=self._runc()))
        self._imported = False

    @property
    def pid(self) -> int:
        """Process id of the daemon; its namespaces are what it sees."""
        assert self._process is not None, "containerd was not started"
        return self._process.pid

    @property
    def cgroup_root(self) -> Path:
        """Where this process finds the cgroups that the daemon sees."""
        if self.view is View.UNIFIED:  # the same hierarchy, wherever it is mounted here
            return next(point for point, kind in observer.cgroup_mounts().items() if kind == "cgroup2")
        return Path("/sys/fs/cgroup")

    @property
    def log(self) -> str:
        """What the daemon logged, all its lives together."""
        return (self.directory / "containerd.log").read_text(errors="replace")

    async def start(self) -> None:
        """Start it, or start it again, and wait until CRI answers and the NRI socket is open."""
        command = [str(self._tools.containerd), "--config", str(self._config)]
        if self.view is View.UNIFIED:
            command = [
                "unshare",
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                UNIFIED_ONLY,
                "sh",
                *command,
            ]
        path = f"{self._tools.shim.parent}{os.pathsep}{os.environ['PATH']}"
        with (self.directory / "containerd.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - it outlives the loop; starting is a fork
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"PATH": path},
                start_new_session=True,  # an interrupt from the keyboard is for pytest, which then sweeps
            )
        await until("containerd listens", self._listens, 20.0)
        if not self._imported:
            self._import_image()
        async with CriClient(self.socket) as cri:

            async def knows_image() -> bool:
                # CRI listens before it is initialized, and refuses until then; and it learns of an image by
                # an event, a moment after the import has returned.
                with contextlib.suppress(GRPCError):
                    return await cri.has_image(IMAGE)
                return False

            await until("CRI knows the image", knows_image, 20.0)

    def install_plugin(self, name: str, script: str, config: str) -> None:
        """Put a plugin where the daemon starts plugins from; it does so at its own next start.

        Args:
            name: `NN-name`. The daemon refuses to start where it cannot start a plugin.
            script: A line for sh, which runs without PATH and with its output closed.
            config: What the daemon hands it when it registers.
        """
        directory = self.directory / "nri"
        for part in ("plugins", "conf.d"):
            (directory / part).mkdir(parents=True, exist_ok=True)
        program = directory / "plugins" / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        (directory / "conf.d" / f"{name}.conf").write_text(config)

    async def kill(self) -> None:
        """End it with SIGKILL, as an out-of-memory kill would. Its shims and containers live on."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """End it with SIGTERM. Its shims and containers live on."""
        await self._end(signal.SIGTERM)

    def close(self) -> list[str]:
        """End everything that bears the lane's name, daemon first.

        Returns:
            What was left in spite of it; empty is the only good answer.
        """
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5.0)
            self._process.kill()
            self._process.wait()
        return sweep(self.name)

    def _listens(self) -> bool:
        assert self._process is not None
        status = self._process.poll()
        assert status is None, f"containerd ended with {status}:\n{self.log[-3000:]}"
        return all(observer.processes_on_socket(it) for it in (self.socket, self.nri_socket))

    async def _end(self, number: signal.Signals) -> None:
        process = self._process
        assert process is not None, "containerd was not started"
        process.send_signal(number)
        await until("containerd has ended", lambda: process.poll() is not None, 10.0)

    def _import_image(self) -> None:
        archive = self.directory / "image.tar"
        write_image(archive, self._tools.busybox, IMAGE, ("/bin/sleep", "1000000000"))
        subprocess.run(
            [self._tools.ctr, "--address", self.socket, "--namespace", "k8s.io", "images", "import",
             "--no-unpack", archive],  # CRI unpacks it for its own snapshotter
            check=True, capture_output=True, timeout=30,
        )  # fmt: skip
        archive.unlink()
        self._imported = True

    def _runc(self) -> Path:
        """Return the OCI runtime: runc itself, or a launcher that edits the bundle first."""
        edits = []
        if self.view is View.SLICES:
            edits.append("expand-slices")
        if self.view is View.UNIFIED or not _resources_can_be_set():
            edits.append("drop-resources")
        if not edits:
            return self._tools.runc
        launcher = self.directory / "runc-launcher"
        script = Path(runc_wrapper.__file__)
        launcher.write_text(
            "#!/bin/sh\n"
            f"exec '{sys.executable}' -I -S '{script}' {','.join(edits)} '{self._tools.runc}' \"$@\"\n"
        )
        launcher.chmod(0o755)
        return launcher


def obstacle() -> str | None:
    """Return why this machine cannot run the lane, or None where it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a real containerd needs root on Linux"
    for program in ("unshare", "mount", "umount"):
        if shutil.which(program) is None:
            return f"no program {program} (util-linux)"
    namespaces = [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--ipc",
        "--uts",
        "--propagation",
        "private",
        "true",
    ]
    done = subprocess.run(namespaces, capture_output=True, text=True, check=False, timeout=10)
    if done.returncode != 0:
        return f"no right to make namespaces ({done.stderr.strip()})"
    hierarchies = observer.cgroup_mounts()
    if not hierarchies:
        return "no cgroup hierarchy is mounted"
    for mount in hierarchies:
        probe = mount / f"{PREFIX}probe_{os.getpid()}"
        try:
            probe.mkdir()
            probe.rmdir()
        except OSError as err:
            return f"no right to make cgroups ({err})"
    return None


def _resources_can_be_set() -> bool:
    """Tell whether runc can set cpu shares: in cgroup v1, or where a v2 root hands the controller down."""
    if observer.cgroup_mounts().get(Path("/sys/fs/cgroup")) != "cgroup2":
        return True
    root = Path("/sys/fs/cgroup")
    if "cpu" in (root / "cgroup.subtree_control").read_text().split():
        return True
    with contextlib.suppress(OSError):
        (root / "cgroup.subtree_control").write_text("+cpu")
        return True
    return False
