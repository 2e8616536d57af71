"""Makes AWS's host names local in a function. Python imports this module automatically before the function's code.

The local run puts the module's folder on PYTHONPATH; no image contains it. AWS's host names resolve to the loopback
address, and port 443 to LOCAL_AWS_PORT, where the local run speaks TLS. Other ports are refused. All other names resolve
as before.

This works for libraries that resolve names by Python's socket module: http.client, urllib, urllib3, requests, botocore,
asyncio, aiohttp, httpx, websockets. It does not work for those with a resolver of their own: uvloop, aiodns (aiohttp uses
it if it is installed), grpc, and programs that are not Python, such as curl.
"""

from __future__ import annotations

import _frozen_importlib
import _socket
import os
import sys

TYPE_CHECKING = False  # importing typing would take longer than the rest of this module
if TYPE_CHECKING:
    from typing import Any

# The suffixes in botocore's partitions.json, and those of function URLs and of user pools' domains.
SUFFIXES = (
    ".amazonaws.com",
    ".amazonaws.com.cn",
    ".amazonaws.eu",
    ".amazoncognito.com",
    ".api.amazonwebservices.com.cn",
    ".api.amazonwebservices.eu",
    ".api.aws",
    ".api.aws.hci.ic.gov",
    ".api.aws.ic.gov",
    ".api.aws.scloud",
    ".api.cloud-aws.adc-e.uk",
    ".c2s.ic.gov",
    ".cloud.adc-e.uk",
    ".csp.hci.ic.gov",
    ".on.aws",
    ".sc2s.sgov.gov",
)
LOOPBACK = "127.0.0.1"
HTTPS = {"443", "https"}
UNSPECIFIED = {"None", "0", ""}

refused: set[str] = set()


def localize(host: Any, port: Any) -> tuple[Any, Any]:
    """Return the local address for a host name of AWS. Return other hosts and their ports unchanged.

    Raises:
        gaierror: the port is not HTTPS, so it has no local address.
    """
    if not is_aws(host):
        return host, port
    port_text = to_text(port)
    if port_text in HTTPS:
        return LOOPBACK, int(os.environ["LOCAL_AWS_PORT"])
    if port_text in UNSPECIFIED:
        return LOOPBACK, port
    message = f"{to_text(host)}:{port_text} is not run locally: AWS is reached by HTTPS only"
    if message not in refused:
        refused.add(message)
        print(message, file=sys.stderr)
    raise _socket.gaierror(_socket.EAI_FAIL, message)


def is_aws(host: Any) -> bool:
    return host is not None and f".{to_text(host).rstrip('.').lower()}".endswith(SUFFIXES)


def to_text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, (bytes, bytearray)) else str(value)


resolve, resolve_name, resolve_name_fully = _socket.getaddrinfo, _socket.gethostbyname, _socket.gethostbyname_ex


def getaddrinfo(  # noqa: PLR0917 - as the original
    host: Any,
    port: Any,
    family: int = 0,
    type: int = 0,  # noqa: A002
    proto: int = 0,
    flags: int = 0,
) -> Any:
    local = localize(host, port)
    if local != (host, port):
        flags &= ~_socket.AI_ADDRCONFIG  # which hides the loopback address where there is no network
    return resolve(*local, family, type, proto, flags)


def gethostbyname(host: Any) -> Any:
    return resolve_name(localize(host, None)[0])


def gethostbyname_ex(host: Any) -> Any:
    return resolve_name_fully(localize(host, None)[0])


class Socket(_socket.socket):
    """A socket that localizes the host name in an address. Otherwise C code would resolve the name."""

    __slots__ = ()

    def connect(self, address: Any) -> None:
        super().connect(localize_address(address))

    def connect_ex(self, address: Any) -> int:
        return super().connect_ex(localize_address(address))


def localize_address(address: Any) -> Any:
    return localize(*address[:2]) if isinstance(address, tuple) and len(address) > 1 and is_aws(address[0]) else address


def import_hidden_module() -> None:
    """Import the sitecustomize that this one hides, if there is one."""
    path = [each for each in sys.path if each != __file__.rpartition(os.sep)[0]]
    found = (finder.find_spec("sitecustomize", path) for finder in sys.meta_path)
    if spec := next(filter(None, found), None):
        assert spec.loader
        spec.loader.exec_module(_frozen_importlib.module_from_spec(spec))


if __name__ == "sitecustomize":
    if "LOCAL_AWS_PORT" in os.environ:
        # Patch the C module, so that a function that calls nothing need not import Python's socket module.
        _socket.getaddrinfo, _socket.gethostbyname = getaddrinfo, gethostbyname
        _socket.gethostbyname_ex, _socket.socket = gethostbyname_ex, Socket  # type: ignore[misc]
    import_hidden_module()
