"""TLS over a connected socket, by the standard library's `SSLObject` on buffers in memory.

Imported with the first https connection. Plain and TLS are one path: the same methods, the same
order of sending and reading, and what has arrived can be read after a write has failed.
"""

from __future__ import annotations

import ssl
from contextlib import suppress

from anyio.lowlevel import checkpoint

from ollama_sc._loop.primitives import CHECKPOINT_INTERVAL

from .sockets import READ_BYTES, Socket

# How much is encrypted at a time: what the kernel does not take of it waits in memory.
_BLOCK_BYTES = 64 * 1024


class TlsSocket(Socket):
    """A connected socket with TLS on it."""

    __slots__ = ("_failure", "_incoming", "_outgoing", "_plain", "_ssl")

    def __init__(self, plain: Socket, host: str, context: ssl.SSLContext) -> None:
        super().__init__(plain._sock)
        self._plain = plain
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_hostname=_name(host))
        self._failure: ssl.SSLError | None = None

    async def handshake(self) -> None:
        """Do the handshake.

        Raises:
            OSError: it failed (`ssl.SSLError` is one), or the connection ended.
        """
        while True:
            try:
                self._ssl.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._receive_encrypted()
            except ssl.SSLError:
                self._send_answer()  # the alert that says what is wrong
                raise
            else:
                await self._flush()
                return

    # -- receiving ---------------------------------------------------------------------------

    async def receive(self) -> bytes:
        self._turns += 1
        if self._full or self._turns % CHECKPOINT_INTERVAL == 0:
            await checkpoint()
        while True:
            data = self._decrypt()
            if data is not None:
                return data
            self._send_answer()
            await self._receive_encrypted()

    def _decrypt(self) -> bytes | None:
        """What some of the records hold that have arrived; empty at the end, none if there is none.

        One read of the network can bring thousands of tiny ones: others get their turn between.
        """
        if self._failure is not None:
            raise self._failure
        blocks: list[bytes] = []
        self._full = False
        for _ in range(CHECKPOINT_INTERVAL):
            try:
                block = self._next_record()
            except ssl.SSLError as error:
                self._failure = error
                self._send_answer()
                if not blocks:
                    raise
                break  # what came before it is delivered first
            if block is None:
                break
            if not block:
                # The end, which is found again at the next time.
                return b"".join(blocks)
            blocks.append(block)
        else:
            self._full = True  # there may be more
        return b"".join(blocks) if blocks else None

    def _next_record(self) -> bytes | None:
        """What one record holds; empty at the end, none where no whole one has arrived."""
        try:
            return self._ssl.read(READ_BYTES)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLError as error:
            if _is_end(error):
                return b""
            raise

    async def _receive_encrypted(self) -> None:
        data = await self._plain.receive()
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def is_idle_clean(self) -> bool:
        if not self._plain.is_idle_clean():
            return False
        try:
            # What was read with the last reply and not yet decrypted.
            self._ssl.read(1)
        except ssl.SSLWantReadError:
            return True
        except ssl.SSLError:
            pass
        return False

    # -- sending -----------------------------------------------------------------------------

    def send_now(self, data: bytes) -> bool:
        self._unsent = memoryview(data)
        return self._plain._unsent is None and self._send_encrypted()

    async def send_more(self) -> bool:
        return await self._plain.send_more() and self._send_encrypted()

    def _send_encrypted(self) -> bool:
        """Encrypt and send until the kernel takes no more; whether that was all."""
        while True:
            block = self._unsent
            if block is not None:
                self._ssl.write(block[:_BLOCK_BYTES])
                self._unsent = block[_BLOCK_BYTES:] or None
            if self._outgoing.pending and not self._plain.send_now(self._outgoing.read()):
                return False
            if self._unsent is None:
                return True

    async def _flush(self) -> None:
        """Send what the handshake wants sent."""
        done = self._plain._unsent is None and self._send_encrypted()
        while not done:
            done = await self.send_more()

    def _send_answer(self) -> None:
        """Send an alert or the answer to a key update, if the kernel takes it at once."""
        if self._outgoing.pending and self._plain._unsent is None:
            with suppress(OSError):
                self._plain.send_now(self._outgoing.read())

    def close(self) -> None:
        self._plain.close()

    def disconnect(self) -> None:
        self._plain.disconnect()


def _name(host: str) -> str:
    """The name that a certificate is for: without the dot of a full name, or an address's zone."""
    return host.partition("%")[0].removesuffix(".")


def _is_end(error: ssl.SSLError) -> bool:
    """Whether the other side has closed without TLS's goodbye, as servers of HTTP do."""
    return isinstance(error, ssl.SSLEOFError) or "UNEXPECTED_EOF" in str(error.strerror)


async def wrap(plain: Socket, host: str, context: ssl.SSLContext) -> TlsSocket:
    """Do the TLS handshake; the socket is closed if that fails or is cancelled.

    Raises:
        OSError: it failed (`ssl.SSLError` is one).
    """
    try:
        secured = TlsSocket(plain, host, context)
        await secured.handshake()
    except BaseException:
        plain.close()
        raise
    return secured
