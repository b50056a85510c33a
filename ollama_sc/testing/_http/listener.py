"""A listening socket, and a task for each connection that it accepts."""

import socket
import ssl
from types import TracebackType
from typing import Protocol, Self

import anyio
import anyio.abc
from anyio.streams.tls import TLSStream

from .connection import Connection, Server
from .stream import RawStream


class Host(Server, Protocol):
    """What a listener needs: the server of its connections, told of each one."""

    def connected(self) -> int:
        """A connection was accepted; returns its number."""
        ...

    def disconnected(self) -> None:
        """A connection was closed."""
        ...


class Listener:
    """Serves connections inside of `async with`, in the event loop of the caller.

    On exit all connections are closed and no task is left; an exception of the body propagates
    unchanged.

    Args:
        server: Serves the connections.
        host: An IP address, or a name to be resolved.
        port: 0 selects a free one.
        ssl_context: Serves https.

    Attributes:
        address: The address it is bound to.
        port: The port it listens at.

    """

    def __init__(
        self, server: Host, host: str, port: int, ssl_context: ssl.SSLContext | None
    ) -> None:
        self.port = port
        self.address = ""
        self._server = server
        self._host = host
        self._ssl_context = ssl_context

    async def __aenter__(self) -> Self:
        self._socket = await _listen(self._host, self.port)
        self.address, self.port = self._socket.getsockname()[:2]
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._accept)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        scope = self._group.cancel_scope
        # None of our tasks raises an Exception or cancels the group.
        died = scope.cancel_called
        try:
            if died:
                return await self._group.__aexit__(exc_type, exc, traceback) or False
            # Given the body's exception, the group would wrap it; without the shield a cancellation
            # from outside could replace it on asyncio.
            scope.shield = True
            scope.cancel()
            await self._group.__aexit__(None, None, None)
        finally:
            self._socket.close()
        return False

    async def _accept(self) -> None:
        while True:
            await anyio.wait_readable(self._socket)
            # All that are pending: with hundreds at once the backlog must not overflow.
            while (sock := self._accept_one()) is not None:
                self._group.start_soon(self._serve, RawStream(sock), self._server.connected())

    def _accept_one(self) -> socket.socket | None:
        try:
            return self._socket.accept()[0]
        except (BlockingIOError, ConnectionAbortedError):
            return None

    async def _serve(self, raw: RawStream, number: int) -> None:
        """Serve one connection and close it."""
        connection: Connection | None = None
        stream: anyio.abc.ByteStream = raw
        try:
            if self._ssl_context is not None:
                stream = await TLSStream.wrap(raw, server_side=True, ssl_context=self._ssl_context)
            connection = Connection(self._server, stream, number)
            await connection.serve()
            if connection.ending != "reset" and stream is not raw:
                raw.stop_reading()
                await stream.aclose()
        except (anyio.BrokenResourceError, anyio.EndOfStream, ssl.SSLError):
            pass  # the client aborted the handshake or the shutdown of TLS
        except Exception as exc:  # noqa: BLE001 - the server raises it when it exits
            self._server.crashed(exc)
        finally:
            if connection is not None and connection.ending == "reset":
                raw.reset()
            else:
                raw.finish()  # with unread bytes a mere close() would send RST instead of FIN
                raw.close()
            self._server.disconnected()


async def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; resolves the host only if it is not an IP address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.inet_pton(family, host)
        address = (host, port)
    except OSError:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, address = found[0][0], found[0][4][:2]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)  # noqa: FBT003
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except BaseException:
        listener.close()
        raise
    return listener
