"""What the prober asks, and where: the bytes of every request, put together before the clock runs."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from monkeyproof.config.target_file import TargetFile
from monkeyproof.config.user_files import line_in
from monkeyproof.errors import UsageError
from monkeyproof.probes.prober.golden import Golden, read_golden


@dataclass(frozen=True, slots=True)
class Question:
    """An address, and one request for each line of the golden set."""

    host: str
    port: int
    golden: Sequence[Golden]
    requests: Sequence[bytes]

    @classmethod
    def of(cls, target: TargetFile) -> Question:
        """Read the golden set and find the host's address.

        Raises:
            UsageError: either of them cannot be had.
        """
        parts = urlsplit(target.predict.url)
        golden = read_golden(target.predict.golden)
        try:
            name, port = parts.hostname or "", parts.port or 80
            address = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0][4]
        except (ValueError, OSError) as error:
            where = f"{target.path}:{line_in(target.path, ('predict', 'url'))}: predict.url"
            raise UsageError(f"{where}: {parts.hostname}: no such address: {error}") from None
        where = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        fixed = {"Host": parts.netloc, "Content-Type": "application/json", "User-Agent": "monkeyproof-prober"}
        own = {name.lower() for name in target.predict.headers}
        headers = {name: text for name, text in fixed.items() if name.lower() not in own} | dict(
            target.predict.headers
        )
        lines = [
            f"{target.predict.method} {where} HTTP/1.1",
            *(f"{name}: {text}" for name, text in headers.items()),
        ]
        if any(not line.isprintable() for line in lines):
            raise UsageError(f"{target.path}: predict: a line break or control character in the URL or a header")
        head = "\r\n".join(lines).encode("latin-1", "replace")
        requests = [b"%s\r\nContent-Length: %d\r\n\r\n%s" % (head, len(each.body), each.body) for each in golden]
        return cls(str(address[0]), port, golden, requests)
