"""Builds the page's settings: those in the stack's output, with the addresses and limits of the local run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local.apigateway.limits import Limits
from local.errors import LaunchError, TemplateError

PAGE_CONFIG = "PageConfig"  # the stack's output with the page's settings


def parse_page_config(outputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the settings in the output `PageConfig`; None without this output. Raise TemplateError if it is not JSON."""
    if PAGE_CONFIG not in outputs:
        return None
    text = outputs[PAGE_CONFIG]
    try:
        config = json.loads(text)
    except (TypeError, ValueError) as error:
        raise TemplateError(f"output {PAGE_CONFIG}: {text!r} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise TemplateError(f"output {PAGE_CONFIG}: {text!r} is not a JSON object")
    return config


def build_local_settings(output: dict[str, Any], *, websocket_url: str, aws_url: str, limits: Limits) -> dict[str, Any]:
    """Return the content of `config.json`: the stack's settings with the local addresses and limits."""
    return {
        **{name: value for name, value in output.items() if name != "authorizerLogGroup"},
        "webSocketEndpoint": websocket_url,
        "userPoolEndpoint": f"{aws_url}/",
        "idleLimitSeconds": limits.idle_seconds,
        "connectionLimitSeconds": limits.connection_seconds,
    }


def find_built_page(folder: Path) -> Path:
    """Return the folder's full path. Raise LaunchError if no page is built there."""
    if not (folder / "index.html").is_file():
        raise LaunchError("the page is not built: run `make page`")
    return folder.resolve()
