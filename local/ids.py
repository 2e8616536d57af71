"""Ids as AWS writes them."""

from __future__ import annotations

import random
import re
import time
from base64 import urlsafe_b64encode

random_bits = random.Random().getrandbits  # noqa: S311 - ids are no secrets, and os.urandom takes a system call each
CONNECTION_ID = re.compile(r"[\w-]{14}[AEIMQUYcgkosw048]=", re.ASCII)  # base64url of 11 bytes


def new_id() -> str:
    """A connection, message or request id: 16 characters, base64url of 11 bytes, as observed on AWS."""
    return urlsafe_b64encode((random_bits(86) << 2).to_bytes(11, "big")).decode()


def new_trace_id() -> str:
    return f"1-{int(time.time()):08x}-{random_bits(96):024x}"


def new_span_id() -> str:
    return f"{random_bits(64):016x}"
