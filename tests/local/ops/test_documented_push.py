"""The code of docs/operate.md for pushing from another server, run as it stands there."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from ops import Deployment
from tests.fixtures import ROOT
from tests.fixtures.gateway import received
from tests.fixtures.ops import Desk


async def test_code_of_the_page_pushes(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "operate.md").read_text(), re.DOTALL)
    monkeypatch.setattr(Deployment, "of_stack", lambda _: desk.deployment())
    peer, _ = await desk.connect()
    names: dict[str, Any] = {"user_id": desk.user_id}

    await asyncio.to_thread(exec, code, names)

    assert names["counts"].outcomes == {"delivered": 1}
    assert await received(peer) == '{"news": "maintenance at noon"}'
