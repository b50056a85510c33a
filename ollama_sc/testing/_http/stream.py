"""A byte stream on a non-blocking socket that can be closed or reset at once."""

import socket
import struct

import anyio
import anyio.abc
import anyio.lowlevel

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: close() sends RST


class RawStream(anyio.abc.ByteStream):
    """One accepted connection; owns the socket.

    anyio's own stream has a hidden write buffer and closes asynchronously. Here each `send` is a
    separate system call, and `close()` and `reset()` take effect at once.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)  # noqa: FBT003
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._reading_stopped = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Up to `max_bytes` bytes.

        Raises:
            anyio.EndOfStream: The peer has closed its direction.
            anyio.BrokenResourceError: The connection has been reset.

        """
        while True:
            if self._reading_stopped:
                raise anyio.EndOfStream
            await anyio.wait_readable(self._socket)
            try:
                data = self._socket.recv(max_bytes)
            except BlockingIOError:
                continue
            except OSError as exc:
                raise anyio.BrokenResourceError from exc
            if not data:
                raise anyio.EndOfStream
            return data

    async def send(self, item: bytes) -> None:
        """Pass all bytes to the system, after a checkpoint.

        The checkpoint comes first: what the caller records on return is recorded before the peer
        can have reacted to the bytes.

        Raises:
            anyio.BrokenResourceError: The connection has been reset.

        """
        await anyio.lowlevel.checkpoint()
        view = memoryview(item)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                await anyio.wait_writable(self._socket)
            except OSError as exc:
                raise anyio.BrokenResourceError from exc

    async def send_eof(self) -> None:
        """Close the sending direction (FIN); reading goes on."""
        self.finish()
        await anyio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Close the socket."""
        self.close()
        await anyio.lowlevel.checkpoint()

    def stop_reading(self) -> None:
        """Report the end of the stream from now on, so that the TLS shutdown does not wait."""
        self._reading_stopped = True

    def finish(self) -> None:
        """Send FIN now."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the peer has closed the connection already

    def close(self) -> None:
        """Close the socket now. No other task may be waiting for it."""
        self._socket.close()

    def reset(self) -> None:
        """Close the socket now, with RST. No other task may be waiting for it."""
        if self._socket.fileno() >= 0:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._socket.close()
