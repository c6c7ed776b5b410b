"""Bounds on what a service may cost the load: answers are read up to a limit, and never unpacked.

Imports locust, so only the load's own process may import this.
"""

from __future__ import annotations

from typing import Any

import gevent.socket
from geventhttpclient.client import HTTPClientPool
from locust.contrib.fasthttp import FastResponse

ANSWER_BYTES_MAX = 1024 * 1024


class BoundedSocket(gevent.socket.socket):  # type: ignore[misc]
    """Fails when the answer to one request is longer than the limit, headers included."""

    _left = ANSWER_BYTES_MAX

    def sendall(self, *arguments: Any) -> Any:
        self._left = ANSWER_BYTES_MAX
        return super().sendall(*arguments)

    def recv(self, *arguments: Any) -> Any:
        data = super().recv(*arguments)
        self._left -= len(data)
        if self._left < 0:
            raise ConnectionError("answer too large")
        return data


class BoundedPool(HTTPClientPool):
    """Connections with that limit."""

    def get_client(self, url: Any) -> Any:
        client: Any = super().get_client(url)
        client._connection_pool._create_tcp_socket = BoundedSocket
        return client


class AsSent(FastResponse):
    """The body as it came. A kilobyte of gzip can hold a gigabyte, and the load does not use it."""

    def _content(self) -> Any:
        return None if self.headers is None or self._response is None else self._response.read()
