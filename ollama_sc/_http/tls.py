"""TLS on a connected socket, by anyio's `TLSStream`. Imported with the first https connection."""

from __future__ import annotations

import ssl

import anyio
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint
from anyio.streams.tls import TLSAttribute, TLSStream

from ollama_sc._waiting import TURNS_UNTIL_CHECKPOINT

from .sockets import READ_BYTES, Socket


class TlsSocket(Socket):
    """A connected socket with TLS on it."""

    def __init__(self, plain: Socket, stream: TLSStream, ssl_object: ssl.SSLObject) -> None:
        super().__init__(plain._sock)
        self._plain = plain
        self._stream = stream
        self._ssl_object = ssl_object

    async def receive(self) -> bytes:
        self._turns += 1
        if self._turns % TURNS_UNTIL_CHECKPOINT == 0:
            await checkpoint()  # one read of the network can be thousands of records
        try:
            return await self._stream.receive(READ_BYTES)
        except anyio.EndOfStream:
            return b""

    def send_now(self, data: bytes) -> int:
        del data
        return 0  # a record that the kernel takes only half of has to be finished

    async def send(self, data: bytes | memoryview) -> None:
        await self._stream.send(bytes(data))

    def is_silent(self) -> bool:
        if not self._plain.is_silent():
            return False
        try:
            # What was read with the last reply and not yet decrypted.
            self._ssl_object.read(1)
        except ssl.SSLWantReadError:
            return True
        except ssl.SSLError:
            pass
        return False

    def close(self) -> None:
        self._plain.close()


class _Bytes(ByteStream):
    """A plain socket as what `TLSStream` stands on."""

    def __init__(self, plain: Socket) -> None:
        self._plain = plain

    async def receive(self, max_bytes: int = READ_BYTES) -> bytes:
        del max_bytes  # what comes at once is decrypted at once
        try:
            data = await self._plain.receive()
        except OSError as error:
            raise anyio.BrokenResourceError from error
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        try:
            await self._plain.send(item)
        except OSError as error:
            raise anyio.BrokenResourceError from error

    async def send_eof(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        self._plain.close()


async def wrap(plain: Socket, host: str, context: ssl.SSLContext) -> TlsSocket:
    """Do the TLS handshake; the socket is closed if that fails or is cancelled.

    Raises:
        OSError, anyio.BrokenResourceError, anyio.EndOfStream: it failed (`ssl.SSLError` is one).
    """
    try:
        stream = await TLSStream.wrap(
            _Bytes(plain),
            server_side=False,
            hostname=host,
            ssl_context=context,
            standard_compatible=False,  # servers of HTTP close as they like
        )
    except BaseException:
        plain.close()
        raise
    return TlsSocket(plain, stream, stream.extra(TLSAttribute.ssl_object))  # noqa: S610 - no Django
