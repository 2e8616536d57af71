"""Run the code in docs/operate.md that pushes from another server."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from ops import Deployment
from tests.fixtures import ROOT
from tests.fixtures.gateway import receive
from tests.fixtures.ops import LocalDeployment


async def test_documented_code_pushes(local_deployment: LocalDeployment, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "operate.md").read_text(), re.DOTALL)
    monkeypatch.setattr(Deployment, "of_stack", lambda _: local_deployment.open_deployment())
    peer, _ = await local_deployment.connect()
    names: dict[str, Any] = {"user_id": local_deployment.user_id}

    await asyncio.to_thread(exec, code, names)

    assert names["counts"].outcomes == {"delivered": 1}
    assert await receive(peer) == '{"news": "maintenance at noon"}'
