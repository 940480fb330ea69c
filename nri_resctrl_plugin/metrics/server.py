"""`/metrics`, `/livez` and `/readyz` on one address.

Owns: the listening socket, its threads, which path is answered how. Must not know: what is measured.

Rules:
    1. A scrape blocks on the kernel, so it runs in a thread of its own, never on the event loop, and one at a
       time.
    2. Alive means that the event loop answers within its time. A kernel that hangs in a scrape, or in a look
       at the machine, does not make the plugin look dead: one of each is under way at most.
    3. Nothing here changes anything. Requests, threads and times are bounded; all else than GET is refused.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import io
import socket
import socketserver
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final, Protocol, Self

from attrs import frozen
from prometheus_client import exposition

from nri_resctrl_plugin.errors import PluginError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from prometheus_client import CollectorRegistry

__all__ = ["HealthAddress", "HealthServer", "HealthServerError", "Probe"]

LOOP_LIMIT: Final = 2.0
"""Seconds that the event loop has to answer."""

READ_LIMIT: Final = 5.0
"""Seconds that a client has to send its request, and to take the answer."""

SCRAPE_LIMIT: Final = 10.0
"""Seconds that a scrape waits for the one before it."""

LOOK_LIMIT: Final = 2.0
"""Seconds that a look at the machine waits for the one before it."""

CONNECTIONS: Final = 8
"""Connections at a time; one more is closed at once."""

_TEXT: Final = "text/plain; charset=utf-8"
_LARGEST_PORT: Final = 65535


class HealthServerError(PluginError):
    """The address cannot be used."""


@frozen
class HealthAddress:
    """Where to listen.

    Attributes:
        host: An address or a name; "" for all addresses.
        port: 0 for any free one.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> HealthAddress:
        """Read `HOST:PORT`, `[IPV6]:PORT` or `:PORT`.

        Raises:
            ValueError: It is neither.
        """
        host, colon, port = text.rpartition(":")
        if not colon or not port.isdecimal() or not port.isascii() or int(port) > _LARGEST_PORT:
            raise ValueError(f"{text!r} is not HOST:PORT")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(f"{text!r}: an IPv6 address stands in brackets")
        return cls(host, int(port))


class Probe(Protocol):
    """Tells what keeps the plugin from being ready, a sentence each."""

    def of_plugin(self) -> list[str]:
        """Look at the plugin's own state. Called on the event loop."""
        ...

    def of_machine(self) -> list[str]:
        """Look at the machine. Called in a thread; may block."""
        ...


class HealthServer:
    """Serves health and metrics, in threads beside the event loop.

    Args:
        address: Where.
        registry: What is told at /metrics.
        probe: Tells of readiness.
    """

    def __init__(self, address: HealthAddress, registry: CollectorRegistry, probe: Probe) -> None:
        self._address = address
        self._registry = registry
        self._probe = probe
        self._scraping = threading.Lock()
        self._looking = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: _Server | None = None

    @property
    def port(self) -> int:
        """The port in use; 0 while it does not listen."""
        return 0 if self._server is None else int(self._server.server_address[1])

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        try:
            self._server = _Server(self._address, self)
        except OSError as error:
            where = f"{self._address.host}:{self._address.port}"
            raise HealthServerError(f"cannot listen on {where}: {error.strerror or error}") from error
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop listening. Closing twice is no error; an answer under way is not waited for."""
        server, self._server = self._server, None
        if server is not None:
            # It waits for the accepting thread, which may wait for this very loop.
            await asyncio.to_thread(server.shutdown)
            server.server_close()

    # --- answers; called in threads ---

    def answer(self, path: str, accept: str) -> tuple[HTTPStatus, str, bytes]:
        """Return status, content type and body for a path."""
        match path:
            case "/livez" | "/live":
                return self._alive()
            case "/readyz" | "/ready":
                return self._ready()
            case "/metrics":
                return self._metrics(accept)
            case _:
                return _plain(HTTPStatus.NOT_FOUND, "there are /metrics, /livez and /readyz")

    def _alive(self) -> tuple[HTTPStatus, str, bytes]:
        if self._on_loop() is None:
            return _plain(HTTPStatus.SERVICE_UNAVAILABLE, f"the event loop is silent for {LOOP_LIMIT:g} s")
        return _plain(HTTPStatus.OK, "ok")

    def _ready(self) -> tuple[HTTPStatus, str, bytes]:
        obstacles = self._on_loop()
        if obstacles is None:
            return _plain(HTTPStatus.SERVICE_UNAVAILABLE, f"the event loop is silent for {LOOP_LIMIT:g} s")
        if not self._looking.acquire(timeout=LOOK_LIMIT):
            return _plain(HTTPStatus.SERVICE_UNAVAILABLE, "another look at the machine takes too long")
        try:
            obstacles += self._probe.of_machine()
        finally:
            self._looking.release()
        if obstacles:
            return _plain(HTTPStatus.SERVICE_UNAVAILABLE, "\n".join(obstacles))
        return _plain(HTTPStatus.OK, "ok")

    def _metrics(self, accept: str) -> tuple[HTTPStatus, str, bytes]:
        if not self._scraping.acquire(timeout=SCRAPE_LIMIT):
            return _plain(HTTPStatus.SERVICE_UNAVAILABLE, "another scrape takes too long")
        try:
            encode, kind = exposition.choose_encoder(accept)
            return HTTPStatus.OK, kind, encode(self._registry)
        finally:
            self._scraping.release()

    def _on_loop(self) -> list[str] | None:
        """Ask the probe, on the event loop; None if that does not answer in time."""
        loop = self._loop
        if loop is None:
            return None

        async def ask() -> list[str]:
            return self._probe.of_plugin()

        try:
            return asyncio.run_coroutine_threadsafe(ask(), loop).result(LOOP_LIMIT)
        except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError, RuntimeError):
            return None


def _plain(status: HTTPStatus, text: str) -> tuple[HTTPStatus, str, bytes]:
    return status, _TEXT, f"{text}\n".encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = CONNECTIONS

    def __init__(self, address: HealthAddress, owner: HealthServer) -> None:
        self.owner = owner
        self._places = threading.BoundedSemaphore(CONNECTIONS)
        # A kernel that was booted with ipv6.disable=1 has no such sockets: then all addresses are the others.
        if ":" in address.host or (not address.host and socket.has_dualstack_ipv6()):
            self.address_family = socket.AF_INET6
        super().__init__((address.host, address.port), _Request)

    def server_bind(self) -> None:
        """Listen on both kinds of addresses where all are meant."""
        if self.address_family == socket.AF_INET6 and not self.server_address[0]:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)  # HTTPServer's would look up the host's name

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client: object) -> None:
        """Serve it in a thread, if there is a place."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client)
        except BaseException:  # there is no thread that would give the place back
            self._places.release()
            raise

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client: object
    ) -> None:
        """Serve it, and give the place back."""
        try:
            super().process_request_thread(request, client)
        finally:
            self._places.release()

    def handle_error(self, request: object, client: object) -> None:
        """Say nothing of a client that went away."""


class _Timely(io.RawIOBase):
    """What a client sends until its time is over; a socket's own timeout begins anew with each letter."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Receive what there is.

        Raises:
            TimeoutError: The time is over.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        taken = self._connection.recv_into(buffer)
        self._connection.settimeout(self._seconds)  # the answer has a time of its own
        return taken


class _Request(BaseHTTPRequestHandler):
    server: _Server
    timeout = READ_LIMIT
    server_version = "nri-resctrl-plugin"
    sys_version = ""

    def setup(self) -> None:
        """Read from the client for so long at most."""
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_Timely(self.connection, self.timeout))

    def do_GET(self) -> None:
        """Answer."""
        path = self.path.partition("?")[0]
        try:
            status, kind, body = self.server.owner.answer(path, self.headers.get("Accept", ""))
        except Exception as error:  # noqa: BLE001 - a scrape that fails is told to the scraper
            status, kind, body = _plain(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Log nothing: probes come every few seconds."""
