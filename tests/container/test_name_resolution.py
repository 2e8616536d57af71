"""Run a function in its image while DNS queries are lost."""

from __future__ import annotations

import pytest

from tests.fixtures.engine import docker
from tests.fixtures.functions import AUTHORIZER

# Runs in the container: a DNS server that drops the first query of each address family, and the JWKS host.
DOWNLOAD = """
import http.server, socket, threading
import authorizer

LOST, A_RECORD = 2, b"\\0\\1"
dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
dns.bind(("127.0.0.1", 53))

def answer():
    for number in range(1000):
        query, client = dns.recvfrom(512)
        has_address = query[-4:-2] == A_RECORD
        record = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4\\x7f\\0\\0\\1" if has_address else b""
        header = query[:2] + b"\\x81\\x80\\0\\1" + bytes([0, has_address]) + bytes(4)
        if number >= LOST:
            dns.sendto(header + query[12:] + record, client)

class Host(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"keys")

    def log_request(self, *_):
        pass

host = http.server.HTTPServer(("127.0.0.1", 0), Host)
for target in (answer, host.serve_forever):
    threading.Thread(target=target, daemon=True).start()
print(authorizer.download(f"http://jwks.example:{host.server_port}/", authorizer.JWKS_SECONDS).decode())
"""


@pytest.mark.usefixtures("images")
def test_download_of_keys_survives_a_lost_dns_query() -> None:
    environ = [f"--env={name}={value}" for name, value in AUTHORIZER.items()]
    root = ["--user=0", "--network=bridge", "--dns=127.0.0.1"]  # only root may listen on port 53
    ran = docker("run", "--rm", *root, *environ, "--entrypoint=python", "authorizer:dev", "-c", DOWNLOAD)

    assert (ran.returncode, ran.stdout.strip()) == (0, "keys"), ran.stderr
