"""Provide the stages for the cases: start local gateways, or use existing endpoints."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit

import boto3
import pytest
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from tests.conformance.gateway import PATIENCE_SECONDS, Stage
from tests.fixtures import ROOT
from tests.fixtures.network import is_loopback

IMAGES = Path(__file__).resolve().parent / "images"
READY = re.compile(r"^WebSocket +(?P<url>ws://[^\s?]+)\S*$.*Ctrl-C ends everything\.", re.DOTALL | re.MULTILINE)
START_SECONDS = 300.0  # the image may have to be built
STOP_SECONDS = 30.0
IDLE_SECONDS, CONNECTION_SECONDS = 2.0, 5.0  # the limits of the gateway with short limits

# For each stack: the query and headers that a client must send, and a message that selects a route with a probe.
STACKS: dict[str, dict[str, Any]] = {
    "ConformanceMain": {"query": (("token", "abc"),)},
    "ConformanceBare": {"message": {"service": "chat", "name": "send"}},
    "ConformanceGuarded": {
        "query": (("token", "abc"),),
        "headers": (("X-Token", "abc"),),
        "message": {"service": {"do": "echo"}},
    },
    "ConformanceOpen": {"message": {"list": ["a", "b"]}},
    "ConformanceThrottled": {"message": {}},
    "ConformanceUnpermitted": {},
}


@dataclass(frozen=True)
class Limited:
    """A stage of the main API, and the time limits of its connections."""

    stage: Stage
    idle_seconds: float
    connection_seconds: float


class Deployment(Protocol):
    """Provides stages. A test is skipped if its stage is missing."""

    def get_stage(self, name: str) -> Stage: ...

    def get_any_stage(self) -> Stage:
        """Return a stage for tests that do not depend on the function."""
        ...

    def get_limited(self) -> Limited:
        """Return a stage with time limits that a test can wait for."""
        ...

    def stop(self) -> None: ...


# Local gateways


def create_local_session() -> boto3.Session:
    return boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")


class Up:
    """A `python -m local up` in a child process."""

    def __init__(self, template: Path, functions: str, output: Path, *options: str) -> None:
        self.output = output
        command = [sys.executable, "-m", "local", "up", "--template", str(template), "--images", str(IMAGES)]
        command += ["--port", "0", "--aws-port", "0", "--inspector-port", "0", "--functions", functions, *options]
        with output.open("wb") as file:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)

    def wait_for_url(self) -> str | None:
        """Wait until `up` is ready; return the URL that it prints, or None if it ended instead."""
        deadline = time.monotonic() + START_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            printed = READY.search(self.output.read_text())
            if printed:
                return printed["url"]
            time.sleep(0.02)
        return None

    def interrupt(self) -> None:
        """Send Ctrl-C."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)

    def wait_until_ended(self) -> int:
        try:
            return self.process.wait(STOP_SECONDS)
        finally:
            self.process.kill()

    def find_tracebacks(self) -> list[str]:
        """Return the tracebacks in the output, except those of functions."""
        lines = self.output.read_text().splitlines()
        return [line for line in lines if "Traceback" in line and not line.startswith("  function.")]


@dataclass
class LocalDeployment:
    """Starts an `up` for each stack when the first test needs it."""

    functions: str
    templates: Path
    folder: Path
    _ups: dict[tuple[str, ...], tuple[Up, Stage | None]] = field(default_factory=dict)

    def get_stage(self, name: str, *options: str) -> Stage:
        key = (name, *options)
        if key not in self._ups:
            output = self.folder / f"{name}-{len(self._ups)}.txt"
            up = Up(self.templates / f"{name}.template.json", self.functions, output, *options)
            url = up.wait_for_url()
            self._ups[key] = up, Stage(url, "us-east-1", create_local_session(), **STACKS[name]) if url else None
        up, stage = self._ups[key]
        if stage is None:
            pytest.fail(f"{name} could not be started:\n{up.output.read_text()}", pytrace=False)
        return stage

    def get_any_stage(self) -> Stage:
        return self.get_stage("ConformanceMain")

    def get_limited(self) -> Limited:
        limits = ("--idle-limit", str(IDLE_SECONDS), "--connection-limit", str(CONNECTION_SECONDS))
        return Limited(self.get_stage("ConformanceMain", *limits), IDLE_SECONDS, CONNECTION_SECONDS)

    def stop(self) -> None:
        for up, stage in self._ups.values():
            up.interrupt()
            if stage:
                stage.close()
        ended = [(up.wait_until_ended(), up.find_tracebacks(), stage) for up, stage in self._ups.values()]
        started = [(status, tracebacks) for status, tracebacks, stage in ended if stage]
        assert started == [(0, [])] * len(started)


# Existing endpoints


@dataclass(frozen=True)
class Endpoints:
    """Existing stages, for example in AWS. `main` may have another function than the pack's."""

    stages: dict[str, Stage]
    main: Stage
    slow: bool

    @classmethod
    def read(cls, config: pytest.Config) -> Endpoints:
        given = config.getoption("query")
        query = tuple((name, value) for name, _, value in (each.partition("=") for each in given))
        file = config.getoption("outputs")
        outputs = json.loads(Path(file).read_text()) if file else {}
        session = boto3.Session(profile_name=config.getoption("profile"))
        region = config.getoption("region")
        stages = {
            name: build_stage(outputs[name]["Endpoint"], region, session, **settings)
            for name, settings in STACKS.items()
            if name in outputs
        }
        if endpoint := config.getoption("endpoint"):
            main = build_stage(endpoint, region, session, query=query)
            probed = dataclasses.replace(main, query=(*STACKS["ConformanceMain"]["query"], *query))
            if has_probe(probed):
                main = stages["ConformanceMain"] = probed
        elif "ConformanceMain" in stages:
            main = stages["ConformanceMain"]
        else:
            pytest.fail("--outputs has no ConformanceMain", pytrace=False)
        return cls(stages, main, slow=config.getoption("slow"))

    def get_stage(self, name: str) -> Stage:
        if name not in self.stages:
            pytest.skip(f"needs stack {name} of tests/conformance/app.py: see --outputs")
        return self.stages[name]

    def get_any_stage(self) -> Stage:
        return self.main

    def get_limited(self) -> Limited:
        if not self.slow:
            pytest.skip("takes ten minutes or two hours: see --slow")
        return Limited(self.get_stage("ConformanceMain"), idle_seconds=600, connection_seconds=7200)

    def stop(self) -> None:
        """Leave the endpoints running."""


def build_stage(url: str, region: str | None, session: boto3.Session, **settings: Any) -> Stage:
    host = urlsplit(url).hostname or ""
    named = re.search(r"\.execute-api\.([a-z0-9-]+)\.", host)
    if is_loopback(host):
        session = create_local_session()
    region = region or (named[1] if named else session.region_name or "us-east-1")
    return Stage(url.rstrip("/"), region, session, **settings)


def has_probe(stage: Stage) -> bool:
    """Return whether the pack's function serves the stage."""
    script = {**stage.message, "do": {"steps": [["post", "self", "here is a probe"]]}}
    try:
        with connect(f"{stage.url}?{urlencode(stage.query)}", open_timeout=PATIENCE_SECONDS) as peer:
            peer.send(json.dumps(script))
            return peer.recv(PATIENCE_SECONDS) == "here is a probe"
    except (OSError, TimeoutError, WebSocketException):
        return False
