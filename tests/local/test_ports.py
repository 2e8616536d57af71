"""Ports of the loopback interface, and the error for a port that is not available."""

from __future__ import annotations

import errno
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from local import paths, ports, state
from local.errors import LaunchError
from local.ports import bind_localhost, find_port
from local.state import State
from tests.fixtures.network import find_free_port, needs_ipv6


@pytest.fixture(params=["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
def taken(request: pytest.FixtureRequest) -> Iterator[int]:
    """A port at which another program listens, at this address only."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.create_server((request.param, 0), family=family) as server:
        yield server.getsockname()[1]


def test_port_that_another_program_has_is_named_with_the_flag_to_choose_another() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        with pytest.raises(LaunchError) as error:
            find_port(port, "--aws-port")

    assert str(error.value) == f"port {port} is taken by another program: choose another with --aws-port"


def test_port_that_another_make_up_has_is_named_with_its_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(paths, "STATE", tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server, subprocess.Popen(["sleep", "60"]) as other:
        port = server.getsockname()[1]
        state.write(4600, State(other.pid, "sleep 60", {"--port": 4600, "--page-port": port}))

        with pytest.raises(LaunchError) as error:
            find_port(port, "--page-port")
        other.kill()

    owner = f"the `make up` with pid {other.pid}"
    assert str(error.value) == f"port {port} is taken by {owner}: choose another with --page-port"


def test_free_port_is_kept_and_zero_becomes_a_free_port() -> None:
    port = find_free_port()

    assert find_port(port, "--port") == port
    assert find_port(0, "--port") > 0


def test_impossible_port_is_named() -> None:
    with pytest.raises(LaunchError, match="70000 is not a port number"):
        find_port(70000, "--port")


def test_port_of_localhost_that_is_taken_at_either_address_is_refused(taken: int) -> None:
    with pytest.raises(LaunchError) as error:
        bind_localhost(taken, "--page-port")

    assert str(error.value) == f"port {taken} is taken by another program: choose another with --page-port"


def test_port_of_localhost_is_kept_from_other_programs_before_the_page_is_served() -> None:
    listeners = bind_localhost(0, "--page-port")

    try:
        with pytest.raises(LaunchError, match="is taken by another program"):
            bind_localhost(listeners[0].getsockname()[1], "--page-port")
    finally:
        for listener in listeners:
            listener.close()


@needs_ipv6
@pytest.mark.parametrize("port", [0, find_free_port()], ids=["any", "chosen"])
def test_port_of_localhost_is_the_same_at_both_addresses(port: int) -> None:
    ipv4, ipv6 = bind_localhost(port, "--page-port")

    with closing(ipv4), closing(ipv6):
        bound = ipv4.getsockname()[1]
        assert (ipv4.getsockname()[0], *ipv6.getsockname()[:2]) == ("127.0.0.1", "::1", bound)
        assert port in {0, bound}


@needs_ipv6
def test_any_port_of_localhost_is_one_that_is_free_at_both_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    bind, refusals = ports.bind, [errno.EADDRINUSE, errno.EADDRINUSE]

    def refuse_at_first(host: str, port: int, flag: str) -> socket.socket:
        if host == "::1" and refusals:
            raise LaunchError("taken") from OSError(refusals.pop(), "in use")
        return bind(host, port, flag)

    monkeypatch.setattr(ports, "bind", refuse_at_first)
    ipv4, ipv6 = bind_localhost(0, "--page-port")

    with closing(ipv4), closing(ipv6):
        assert refusals == []


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT], ids=errno.errorcode.get)
def test_machine_without_ipv6_has_one_address_of_localhost(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    bind = ports.bind

    def bind_ipv4(host: str, port: int, flag: str) -> socket.socket:
        if host == "::1":
            raise LaunchError("no ::1") from OSError(number, "not available")
        return bind(host, port, flag)

    monkeypatch.setattr(ports, "bind", bind_ipv4)
    (listener,) = bind_localhost(0, "--page-port")

    with closing(listener):
        assert listener.getsockname()[0] == "127.0.0.1"
