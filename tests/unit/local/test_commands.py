"""The commands for a running `make up`, without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from local import paths
from local.__main__ import main


@pytest.mark.parametrize("command", ["token", "connection", "user bob@example.com", "post hello"])
def test_command_without_make_up_on_its_port_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setattr(paths, "STATE", tmp_path)

    assert main([*command.split(), "--port=4600"]) == 1

    why = "`make up` does not run on port 4600: start `make up` in another terminal\n"
    assert capsys.readouterr() == ("", why)
