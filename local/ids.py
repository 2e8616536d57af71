"""Makes and reads ids in AWS's formats."""

from __future__ import annotations

import random
import re
import time
from base64 import urlsafe_b64encode

random_bits = random.Random().getrandbits  # noqa: S311 - ids are not secret, and os.urandom needs a system call for each
TRACE_ROOT = re.compile(r"Root=(1-[0-9a-f]{8}-[0-9a-f]{24})\b")
CONNECTION_ID = re.compile(r"[\w-]{14}[AEIMQUYcgkosw048]=", re.ASCII)  # base64url of 11 bytes


def make_id() -> str:
    """Return a connection, message or request id: 16 characters, base64url of 11 bytes, as observed on AWS."""
    return urlsafe_b64encode((random_bits(86) << 2).to_bytes(11, "big")).decode()


def make_trace_id() -> str:
    return f"1-{int(time.time()):08x}-{random_bits(96):024x}"


def find_trace_id(header: str | None) -> str | None:
    """Return the trace id in a header `X-Amzn-Trace-Id`."""
    found = TRACE_ROOT.search(header or "")
    return found[1] if found else None


def make_span_id() -> str:
    return f"{random_bits(64):016x}"
