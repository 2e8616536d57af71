"""Binds ports of the loopback interface; an error says which flag chooses another port."""

from __future__ import annotations

import errno
import socket
from contextlib import closing

from local.errors import LaunchError
from local.state import find_owner

NO_IPV6 = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
ATTEMPTS = 10
SHUTDOWN_SECONDS = 0.1  # for the last responses of an HTTP server; aiohttp would wait forever with 0


def find_port(port: int, flag: str) -> int:
    """Check that the port is free and return it; for 0 return any free port.

    Raises:
        LaunchError: the port is not available; the message names the flag that chooses another.
    """
    with closing(bind("127.0.0.1", port, flag)) as listener:
        return int(listener.getsockname()[1])


def bind_localhost(port: int, flag: str) -> list[socket.socket]:
    """Return sockets that listen on a port of 127.0.0.1 and of ::1, if the machine has it.

    A browser may resolve `localhost` to either address. If only one were bound, a browser could show another program
    that listens on the other one. The sockets listen at once, because another program can take a port that is only bound.

    Raises:
        LaunchError: the port is not available; the message names the flag that chooses another.
    """
    attempts = 1 if port else ATTEMPTS  # a port that is free at one address may be taken at the other
    while True:
        attempts -= 1
        listener = bind("127.0.0.1", port, flag)
        try:
            return [listener, bind("::1", listener.getsockname()[1], flag)]
        except LaunchError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in NO_IPV6:
                return [listener]
            listener.close()
            if not attempts:
                raise


def check_localhost(port: int, flag: str) -> None:
    """Raise LaunchError if `bind_localhost` could not bind the port now."""
    for listener in bind_localhost(port, flag):
        listener.close()


def bind(host: str, port: int, flag: str) -> socket.socket:
    try:
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise LaunchError(f"{host} cannot be used: {error.strerror}") from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        reason = f"cannot be used: {error.strerror}"
        if error.errno == errno.EADDRINUSE:
            owner = find_owner(port)
            reason = f"is taken by {f'the `make up` with pid {owner}' if owner else 'another program'}"
        raise LaunchError(f"port {port} {reason}: choose another with {flag}") from error
    except OverflowError as error:
        listener.close()
        raise LaunchError(f"{port} is not a port number (0 to 65535)") from error
    return listener
