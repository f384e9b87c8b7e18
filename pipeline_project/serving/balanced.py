"""A uvicorn server that shares its listening socket fairly with the other workers.

Left alone, the first worker to wake up accepts every waiting connection, and with keep-alive it then has them all for good while the
others are idle. Here a worker accepts one at a time and, the more connections it has, the longer it leaves the next to the others.
"""

import asyncio
import socket

import uvicorn

_PAUSE_S, _MAX_PAUSE_S = 0.001, 0.01


class BalancedServer(uvicorn.Server):
    """Serves one application on an inherited listening socket.

    Args:
        listener: bound and listening.
        shared: whether other processes accept from it too.
    """

    def __init__(self, config: uvicorn.Config, listener: socket.socket, *, shared: bool) -> None:
        super().__init__(config)
        self._listener, self._shared = listener, shared
        self._accepting: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start accepting; `sockets` is not used."""
        await super().startup(sockets=[])
        self._listener.setblocking(False)
        self._accepting = asyncio.create_task(self._accept())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, then let open requests finish."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait([self._accepting])
        self._listener.close()
        await super().shutdown(sockets=[])

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listener)
                await loop.connect_accepted_socket(self._protocol, connection)
            except OSError:  # too many open files, or a client that is gone already
                await asyncio.sleep(0.05)
                continue
            if self._shared:
                await asyncio.sleep(min(_PAUSE_S * len(self.server_state.connections), _MAX_PAUSE_S))

    def _protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg, return-value, unused-ignore]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
