"""The whole system with our own stack, as the CDK writes it for an account and region."""

from __future__ import annotations

import asyncio
import io
import json
import re
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from local import paths
from local.example import build_handshake
from local.progress import Progress
from local.system import Options, run_system
from tests.fixtures.gateway import receive

PASSWORD = "correct-Horse-battery-1"


@pytest.fixture
def bound_template(own_template: Path, tmp_path: Path) -> Path:
    """Our own stack, as the CDK writes it for an account and region."""
    content = own_template.read_text()
    for name, value in {"AccountId": "123456789012", "Region": "eu-west-1", "Partition": "aws"}.items():
        content = re.sub(rf'{{\s*"Ref":\s*"AWS::{name}"\s*}}', f'"{value}"', content)
    path = tmp_path / own_template.name
    path.write_text(content)
    artifact = {"environment": "aws://123456789012/eu-west-1", "properties": {"templateFile": path.name}}
    (tmp_path / "manifest.json").write_text(json.dumps({"artifacts": {"Stack": artifact}}))
    return path


async def test_user_of_a_bound_stack_is_let_in_and_stored(
    bound_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "STATE", tmp_path)
    monkeypatch.setattr(paths, "LOGS", tmp_path / "logs")

    async with run_system(Options(template=bound_template, functions="process"), Progress(io.StringIO())) as system:
        await asyncio.to_thread(system.users.add, "ada@example.com", PASSWORD)
        token = await asyncio.to_thread(system.users.get_id_token, "ada@example.com", PASSWORD)
        async with connect(**build_handshake(system, token)) as peer:
            await peer.send("hello")
            message = await receive(peer)
            rows = await asyncio.to_thread(system.aws.client("dynamodb").scan, TableName=system.table_name)

    assert system.stack.api.arn == "arn:aws:execute-api:eu-west-1:123456789012:localapi00/prod"
    assert (message, rows["Count"]) == ('{"message": "hello"}', 1)
