"""Records in the journal the trace segments that functions send by the X-Ray SDK.

https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from local.journal import Journal


class TraceListener(asyncio.DatagramProtocol):
    """Listens on a UDP port of the loopback interface, as the X-Ray daemon does."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    async def start(self) -> str:
        """Listen; return the address in the form of AWS_XRAY_DAEMON_ADDRESS."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", 0))
        host, port = self._transport.get_extra_info("sockname")
        return f"{host}:{port}"

    async def stop(self) -> None:
        self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """Record a segment document, which follows a header line. Ignore any other data."""
        _, _, document = data.partition(b"\n")
        try:
            trace_id = json.loads(document)["trace_id"]
        except (ValueError, LookupError, TypeError, RecursionError):
            return
        if isinstance(trace_id, str):
            self.journal.record("trace", trace_id, document=document)
