"""A busy node without one: what its runtime tells, the runtime's end of the wire, its containers' cgroups.

Owns: pods and containers of realistic size as bytes; a runtime with a blocking socket; the life of the
directories that stand for its cgroups and its resctrl. Must not know: what is measured with it.

Rules:
    1. What a runtime would have in another process is never in the one that is measured.
"""

from __future__ import annotations

import os
import socket
import struct
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from attrs import frozen

from benchmarks.files import make_cgroups, make_resctrl
from benchmarks.report import require
from nri_resctrl_plugin.demo.peer import split_parts
from nri_resctrl_plugin.nri import api, envelope, mux
from nri_resctrl_plugin.nri.wire import bytes_field, int_field

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LARGE", "SIZES", "SMALL", "Listener", "Machine", "Node", "Runtime", "Size"]

PLUGIN: Final = "nri.pkg.api.v1alpha1.Plugin"
_RUNNING: Final = 3
_PAUSE: Final = 1000
"""The id of the first pod's pause process."""


@frozen
class Size:
    """How big a node is.

    Attributes:
        pods: How many pods.
        each: How many containers each has.
        threads: How many threads each container has.
    """

    pods: int
    each: int
    threads: int = 2

    @property
    def containers(self) -> int:
        """How many containers there are."""
        return self.pods * self.each

    def __str__(self) -> str:
        return f"{self.pods} pods, {self.containers:,} containers"


SMALL: Final = Size(110, 3)
"""As many pods as a kubelet allows where nobody changed it."""
LARGE: Final = Size(500, 5)
"""As many as the largest nodes are configured for."""
SIZES: Final = (SMALL, LARGE)


def _text(number: int, value: str) -> bytes:
    """Encode a string field."""
    return bytes_field(number, value.encode())


def _entry(number: int, key: str, value: str) -> bytes:
    """Encode an entry of a map."""
    return bytes_field(number, _text(1, key) + _text(2, value))


def _slice(pod: int) -> str:
    return f"kubepods-burstable-pod{Node.uid(pod).replace('-', '_')}.slice"


@frozen
class Node:
    """What runs there, as a runtime tells it.

    Attributes:
        size: How big it is.
    """

    size: Size

    @staticmethod
    def uid(pod: int) -> str:
        """Return a pod's uid."""
        return f"{pod:08x}-0000-4000-8000-{pod:012x}"

    def tids(self, container: int) -> range:
        """Return the ids of a container's threads, its main process first. No such threads live here."""
        first = (1 << 21) + container * self.size.threads
        return range(first, first + self.size.threads)

    def pod(self, number: int) -> bytes:
        """Encode a pod of about 4 KB, as a cluster with the usual controllers has them."""
        labels = {f"app.kubernetes.io/label-{n}": f"value-{number}-{n}" for n in range(10)}
        annotations = {f"example.org/annotation-{n}": "x" * 300 for n in range(9)}
        body = _text(1, f"{number:064x}") + _text(2, f"workload-{number}-abcde") + _text(3, self.uid(number))
        body += _text(4, "default")
        body += b"".join(_entry(5, key, value) for key, value in labels.items())
        body += b"".join(_entry(6, key, value) for key, value in annotations.items())
        parent = f"/kubepods.slice/kubepods-burstable.slice/{_slice(number)}"
        namespaces = b"".join(
            bytes_field(5, _text(1, kind) + _text(2, f"/proc/{number}/ns/{kind}"))
            for kind in ("pid", "ipc", "uts", "mount", "network")
        )
        cgroup = f"{_slice(number)}:cri-containerd:{number:064x}"
        body += bytes_field(8, _text(3, parent) + _text(4, cgroup) + namespaces)
        return body + int_field(9, _PAUSE + number) + _text(10, f"10.0.{number // 250}.{number % 250}")

    def container(self, number: int) -> bytes:
        """Encode a running container of about 10 KB: environment, mounts, devices, a seccomp policy."""
        pod = number % self.size.pods
        body = _text(1, self.container_id(number)) + _text(2, f"{pod:064x}")
        body += _text(3, f"container-{number // self.size.pods}") + int_field(4, _RUNNING)
        body += b"".join(_entry(5, f"io.kubernetes.label-{n}", f"value-{n}") for n in range(6))
        body += b"".join(_entry(6, f"io.kubernetes.annotation-{n}", "y" * 80) for n in range(10))
        body += b"".join(_text(7, f"--flag-{n}=value") for n in range(8))
        body += b"".join(_text(8, f"SERVICE_{n}_PORT_8080_TCP_ADDR=10.96.0.{n}") for n in range(80))
        mount = _text(2, "bind") + _text(3, "/var/lib/kubelet/pods/0000/volumes/x")
        mount += _text(4, "rbind") + _text(4, "rw")
        body += b"".join(bytes_field(9, _text(1, f"/mnt/volume-{n}") + mount) for n in range(14))
        calls = b"".join(_text(1, f"syscall_{n}") for n in range(290)) + _text(2, "SCMP_ACT_ALLOW")
        devices = b"".join(
            bytes_field(2, _text(1, f"/dev/d{n}") + _text(2, "c") + int_field(3, n)) for n in range(6)
        )
        linux = devices + _text(5, f"{_slice(pod)}:cri-containerd:{self.container_id(number)}")
        body += bytes_field(11, linux + bytes_field(8, bytes_field(7, calls)))
        body += int_field(12, self.tids(number)[0])
        body += b"".join(
            bytes_field(13, _text(1, f"RLIMIT_{n}") + int_field(2, 1024) + int_field(3, 1024))
            for n in range(4)
        )
        return body + int_field(14, 1_700_000_000_000_000_000) + int_field(15, 1_700_000_000_000_000_001)

    def container_id(self, number: int) -> str:
        """Return a container's id, of the length that runtimes give it."""
        return f"{(1 << 200) + number:064x}"

    def sandbox_cgroup(self, pod: int) -> str:
        """Return the cgroup of a pod's pause process below the root."""
        return f"/kubepods.slice/kubepods-burstable.slice/{_slice(pod)}/cri-containerd-{pod:064x}.scope"

    def cgroup(self, number: int) -> str:
        """Return a container's cgroup below the root."""
        pod = _slice(number % self.size.pods)
        unit = f"cri-containerd-{self.container_id(number)}.scope"
        return f"/kubepods.slice/kubepods-burstable.slice/{pod}/{unit}"

    def parts(self) -> list[bytes]:
        """Return the messages of a Synchronize that lists everything."""
        pods = [self.pod(number) for number in range(self.size.pods)]
        containers = [self.container(number) for number in range(self.size.containers)]
        return [bytes(part) for part in split_parts(pods, containers)]


class Machine:
    """A node's cgroups and its resctrl, in a directory of memory where there is one.

    Attributes:
        cgroups: What would be /sys/fs/cgroup.
        proc: What would be /proc.
        resctrl: What would be /sys/fs/resctrl.
    """

    def __init__(self, node: Node) -> None:
        memory = Path("/dev/shm")  # noqa: S108 - a disk is not what is measured
        self._folder = tempfile.TemporaryDirectory(
            prefix="bench-machine-", dir=memory if os.access(memory, os.W_OK) else None
        )
        folder = Path(self._folder.name).resolve()
        size = node.size
        sandboxes = [(node.sandbox_cgroup(pod), [_PAUSE + pod]) for pod in range(size.pods)]
        containers = [(node.cgroup(number), node.tids(number)) for number in range(size.containers)]
        self.cgroups, self.proc = make_cgroups(folder, [*sandboxes, *containers])
        self.resctrl = make_resctrl(folder, size.pods + 8)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._folder.cleanup()

    def groups(self) -> dict[str, list[int]]:
        """Return the threads in each group, read past everything that is measured."""
        return {
            group.name: [int(line) for line in (group / "tasks").read_text(encoding="ascii").split()]
            for group in (self.resctrl / "mon_groups").iterdir()
        }


class Runtime:
    """The runtime's end of one connection, with a blocking socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._stream = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._sock.close()

    def _take_message(self) -> tuple[int, bytes]:
        """Read one message that came in one frame; return its connection and body."""
        conn, length = struct.unpack(">II", self._exactly(8))
        return conn, self._exactly(length)[10:]

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._sock.recv(count - len(data))
            if not piece:
                raise ConnectionError("the plugin hung up")
            data += piece
        return data

    def register(self) -> None:
        """Take the registration and configure the plugin."""
        conn, _ = self._take_message()
        require(conn == mux.RUNTIME_CONN, "a plugin registers on its connection to the runtime")
        self._sock.sendall(mux.frames(conn, envelope.encode_answer(1, b"")))
        self.call("Configure", bytes(api.ConfigureRequest(request_timeout=2000)))

    def synchronize(self, parts: Sequence[bytes]) -> list[float]:
        """Tell everything that exists; return the seconds that each answer took."""
        times = []
        for index, part in enumerate(parts):
            took, body = self.call("Synchronize", part)
            more = index + 1 < len(parts)
            require(body == (b"\x12\x02\x10\x01" if more else b""), "`more` is echoed")
            times.append(took)
        return times

    def call(self, method: str, payload: bytes) -> tuple[float, bytes]:
        """Call the plugin.

        Returns:
            Seconds from the moment at which the last byte was handed to the kernel until the answer was
            read, so that what the plugin had not read by then is on its account; and the answer.
        """
        message = mux.frames(
            mux.PLUGIN_CONN, envelope.encode_request(self._stream, PLUGIN, method, payload, 2.0)
        )
        self._sock.sendall(message)
        sent = time.perf_counter()
        conn, body = self._take_message()
        took = time.perf_counter() - sent
        require(conn == mux.PLUGIN_CONN, "an answer comes on the connection of its call")
        self._stream += 2
        return took, body


class Listener:
    """Where a runtime listens.

    Attributes:
        path: The socket.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bench-nri-")
        self.path = Path(self._folder.name) / "nri.sock"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(self.path))
        self._socket.listen()
        self._socket.settimeout(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()
        self._folder.cleanup()

    def accept(self) -> Runtime:
        """Take the next plugin, registered and configured."""
        sock, _ = self._socket.accept()
        sock.settimeout(60)
        runtime = Runtime(sock)
        runtime.register()
        return runtime
