"""How long a runtime waits for the answers to a Synchronize of a big node.

    python benchmarks/bench_wire_sync.py [--runs 9]

500 pods and 2,500 containers of realistic size (4 KB and 10 KB, about 27 MB) come in messages of under 4 MiB
over a unix socket. The plugin's stub lives in a process of its own; this process is the runtime, with a
blocking socket. A chunk's time runs from the moment at which its last byte was handed to the kernel until
its answer is read, so what the plugin has not read by then is on its account. Bar: all chunks together under
200 ms.

Beside it, from the plugin's process: how long decoding takes afterwards, and the longest time for which it
held up its event loop. What is counted (pods, containers, chunks, answers) is asserted; times are reported.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from nri_resctrl_plugin.demo.peer import split_parts
from nri_resctrl_plugin.nri import api, envelope, mux
from nri_resctrl_plugin.nri.stub import Backoff, NriStub
from nri_resctrl_plugin.nri.wire import bytes_field, int_field

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nri_resctrl_plugin.nri.messages import Container, PodSandbox, RuntimeInfo

BAR_MS = 200.0
PODS, CONTAINERS = 500, 2500
PLUGIN = "nri.pkg.api.v1alpha1.Plugin"


def text(number: int, value: str) -> bytes:
    """Encode a string field."""
    return bytes_field(number, value.encode())


def entry(number: int, key: str, value: str) -> bytes:
    """Encode an entry of a map."""
    return bytes_field(number, text(1, key) + text(2, value))


def pod_bytes(number: int) -> bytes:
    """Encode a pod of about 4 KB, as a cluster with the usual controllers has them."""
    uid = f"{number:08x}-0000-4000-8000-{number:012x}"
    labels = {f"app.kubernetes.io/label-{n}": f"value-{number}-{n}" for n in range(10)}
    annotations = {f"example.org/annotation-{n}": "x" * 300 for n in range(9)}
    body = text(1, f"{number:064x}") + text(2, f"workload-{number}-abcde") + text(3, uid)
    body += text(4, "default")
    body += b"".join(entry(5, key, value) for key, value in labels.items())
    body += b"".join(entry(6, key, value) for key, value in annotations.items())
    parent = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid.replace('-', '_')}.slice"
    namespaces = b"".join(
        bytes_field(5, text(1, kind) + text(2, f"/proc/{number}/ns/{kind}"))
        for kind in ("pid", "ipc", "uts", "mount", "network")
    )
    body += bytes_field(8, text(3, parent) + text(4, f"{parent}/{number:064x}") + namespaces)
    return body + int_field(9, 1000 + number) + text(10, f"10.0.{number // 250}.{number % 250}")


def container_bytes(number: int) -> bytes:
    """Encode a container of about 10 KB: environment, mounts, devices, a seccomp policy."""
    pod = number % PODS
    body = text(1, f"{number:064x}") + text(2, f"{pod:064x}") + text(3, f"container-{number // PODS}")
    body += int_field(4, 3)
    body += b"".join(entry(5, f"io.kubernetes.label-{n}", f"value-{n}") for n in range(6))
    body += b"".join(entry(6, f"io.kubernetes.annotation-{n}", "y" * 80) for n in range(10))
    body += b"".join(text(7, f"--flag-{n}=value") for n in range(8))
    body += b"".join(text(8, f"SERVICE_{n}_PORT_8080_TCP_ADDR=10.96.0.{n}") for n in range(80))
    mount = (
        text(2, "bind") + text(3, "/var/lib/kubelet/pods/0000/volumes/x") + text(4, "rbind") + text(4, "rw")
    )
    body += b"".join(bytes_field(9, text(1, f"/mnt/volume-{n}") + mount) for n in range(14))
    rule = text(2, "SCMP_ACT_ALLOW")
    syscalls = b"".join(text(1, f"syscall_{n}") for n in range(290))
    devices = b"".join(
        bytes_field(2, text(1, f"/dev/d{n}") + text(2, "c") + int_field(3, n)) for n in range(6)
    )
    slice_name = f"kubepods-burstable-pod{pod:08x}_0000.slice"
    linux = devices + text(5, f"{slice_name}:cri-containerd:{number:064x}")
    body += bytes_field(11, linux + bytes_field(8, bytes_field(7, syscalls + rule)))
    body += int_field(12, 100_000 + number)
    body += b"".join(
        bytes_field(13, text(1, f"RLIMIT_{n}") + int_field(2, 1024) + int_field(3, 1024)) for n in range(4)
    )
    return body + int_field(14, 1_700_000_000_000_000_000) + int_field(15, 1_700_000_000_000_000_001)


def require(condition: object, what: str) -> None:
    """End the benchmark where something other than time is wrong."""
    if not condition:
        raise SystemExit(f"not so: {what}")


class Counting:
    """A handler that counts what it is told and watches its loop."""

    def __init__(self) -> None:
        self.configured_at = 0.0
        self.stall = 0.0
        self.watch: asyncio.Task[None] | None = None

    async def _beat(self) -> None:
        """Measure by how much the loop is late for a beat of 1 ms."""
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            self.stall = max(self.stall, now - last - 0.001)
            last = now

    async def configure(self, runtime: RuntimeInfo) -> None:
        """Begin to watch."""
        del runtime
        self.stall = 0.0
        self.configured_at = time.perf_counter()
        self.watch = asyncio.create_task(self._beat())

    async def synchronize(self, pods: Sequence[PodSandbox], containers: Sequence[Container]) -> None:
        """Report one run as a line of JSON."""
        await asyncio.sleep(0.002)
        if self.watch is not None:
            self.watch.cancel()
        report = {
            "pods": len(pods),
            "containers": len(containers),
            "stall_ms": self.stall * 1000,
            "whole_ms": (time.perf_counter() - self.configured_at) * 1000,
        }
        print(json.dumps(report), flush=True)

    async def run_pod_sandbox(self, pod: PodSandbox) -> None:
        """Never called."""

    stop_pod_sandbox = remove_pod_sandbox = run_pod_sandbox

    async def start_container(self, pod: PodSandbox | None, container: Container) -> None:
        """Never called."""

    stop_container = remove_container = update_container = start_container


async def serve(path: Path) -> None:
    """Be the plugin until the parent ends it."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    backoff = Backoff(first=0.01, limit=0.05)
    await NriStub(Counting(), name="bench", idx="10", socket_path=path, backoff=backoff).run()


class Runtime:
    """The runtime's end of one connection, with a blocking socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._stream = 1

    def take_message(self) -> tuple[int, bytes]:
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
        """Take the registration."""
        conn, _ = self.take_message()
        require(conn == mux.RUNTIME_CONN, "a plugin registers on its connection to the runtime")
        self._sock.sendall(mux.frames(conn, envelope.encode_answer(1, b"")))

    def call(self, method: str, payload: bytes) -> tuple[float, bytes]:
        """Call the plugin; return seconds from the last byte handed over to the answer, and the answer."""
        message = mux.frames(
            mux.PLUGIN_CONN, envelope.encode_request(self._stream, PLUGIN, method, payload, 2.0)
        )
        self._sock.sendall(message)
        sent = time.perf_counter()
        conn, body = self.take_message()
        took = time.perf_counter() - sent
        require(conn == mux.PLUGIN_CONN, "an answer comes on the connection of its call")
        self._stream += 2
        return took, body


def one_run(listener: socket.socket, parts: Sequence[bytes]) -> tuple[list[float], float]:
    """Synchronize one connection; return each chunk's time and the whole time that the sync took."""
    sock, _ = listener.accept()
    with sock:
        runtime = Runtime(sock)
        runtime.register()
        runtime.call("Configure", bytes(api.ConfigureRequest(request_timeout=2000)))
        began = time.perf_counter()
        times = []
        for index, part in enumerate(parts):
            took, body = runtime.call("Synchronize", part)
            more = index + 1 < len(parts)
            require(body == (b"\x12\x02\x10\x01" if more else b""), "`more` is echoed")
            times.append(took)
        return times, time.perf_counter() - began


def main() -> int:
    """Run the benchmark, or the plugin's process of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=9, help="runs that are counted (default: 9)")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        asyncio.run(serve(arguments.serve))
        return 0
    pods = [pod_bytes(number) for number in range(PODS)]
    containers = [container_bytes(number) for number in range(CONTAINERS)]
    parts = [bytes(part) for part in split_parts(pods, containers)]
    total = sum(map(len, parts))
    print(
        f"{PODS} pods of {len(pods[0])} B, {CONTAINERS} containers of {len(containers[0])} B: "
        f"{total / 1e6:.1f} MB in {len(parts)} chunks, the longest {max(map(len, parts)) / (1 << 20):.2f} MiB"
    )
    sums, wholes, reports = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "nri.sock"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(60)
        program = [sys.executable, __file__, "--serve", str(path)]
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as plugin:
            lines = plugin.stdout
            if lines is None:
                raise SystemExit("the plugin has no output")
            try:
                for run in range(arguments.runs + 1):
                    times, whole = one_run(listener, parts)
                    report = json.loads(lines.readline())
                    require((report["pods"], report["containers"]) == (PODS, CONTAINERS), "all were told")
                    require(len(times) == len(parts), "every chunk was answered")
                    if run > 0:  # the first one warms up
                        sums.append(sum(times) * 1000)
                        wholes.append(whole * 1000)
                        reports.append(report)
            finally:
                plugin.terminate()
                listener.close()
    stalls = [report["stall_ms"] for report in reports]
    decodes = [report["whole_ms"] - whole for report, whole in zip(reports, wholes, strict=True)]
    for what, values in (
        ("last byte of each chunk to its answer, summed", sums),
        ("first byte of the first chunk to the last answer", wholes),
        ("decoding everything afterwards, in the background", decodes),
        ("longest stall of the plugin's event loop", stalls),
    ):
        print(f"{what:52} min {min(values):8.1f} ms   median {statistics.median(values):8.1f} ms")
    verdict = "met" if statistics.median(sums) < BAR_MS else "MISSED"
    print(
        f"bar of {BAR_MS:.0f} ms for the first line: {verdict} "
        f"(n={len(sums)}, Python {platform.python_version()})"
    )
    return 0 if verdict == "met" else 1


if __name__ == "__main__":
    sys.exit(main())
