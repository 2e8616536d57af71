"""How the authorizer downloads the user pool's keys; tests/attacks/test_chaos.py has the variety of broken servers."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.fixtures.network import LoopbackServer
from tests.fixtures.tls import Certificate, TlsServer
from tests.fixtures.tokens import JWKS_PATH

SHORT_SECONDS = 0.05  # for a download that never ends
LONG_SECONDS = 60.0


def test_body_of_over_64_kb_is_refused(authorizer: ModuleType, jwks: LoopbackServer) -> None:
    jwks.answer = jwks.answer._replace(body=[b"x" * 65536])
    assert len(authorizer.download(jwks.url + JWKS_PATH, LONG_SECONDS)) == 65536

    jwks.answer = jwks.answer._replace(body=[b"x" * 65537])
    with pytest.raises(authorizer.KeySetUnavailable, match=r" sent over 65536 bytes$"):
        authorizer.download(jwks.url + JWKS_PATH, LONG_SECONDS)


def test_server_that_does_not_answer_in_time_is_given_up(authorizer: ModuleType) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/"

        with pytest.raises(authorizer.KeySetUnavailable, match=r" did not answer completely within 0\.05 s$"):
            authorizer.download(url, SHORT_SECONDS)


def test_download_that_was_given_up_sends_no_request_later(
    authorizer: ModuleType, jwks: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Name resolution has no timeout."""
    resolve, given_up = socket.getaddrinfo, threading.Event()

    def resolve_late(*arguments: Any, **options: Any) -> Any:
        assert given_up.wait(LONG_SECONDS)
        return resolve(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_late)
    with pytest.raises(authorizer.KeySetUnavailable):
        authorizer.download(jwks.url + JWKS_PATH, SHORT_SECONDS)

    given_up.set()
    for thread in threading.enumerate():
        if isinstance(thread, authorizer.GetRequest):
            thread.join(LONG_SECONDS)
    assert jwks.requests == []


@pytest.mark.parametrize("trusted", [True, False], ids=["trusted", "not trusted"])
def test_certificate_of_the_server_must_be_trusted(
    authorizer: ModuleType, jwks: LoopbackServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, trusted: bool
) -> None:
    presented = Certificate().write(tmp_path / "server.pem")
    other = Certificate().write(tmp_path / "other.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(presented if trusted else other))

    with TlsServer(jwks.answer, presented) as server:
        if trusted:
            assert authorizer.download(server.url + JWKS_PATH, LONG_SECONDS)
        else:
            with pytest.raises(authorizer.KeySetUnavailable, match=r": SSLCertVerificationError$"):
                authorizer.download(server.url + JWKS_PATH, LONG_SECONDS)

    assert len(server.requests) == trusted
