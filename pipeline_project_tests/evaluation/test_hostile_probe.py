"""The probe against servers that should not pass: one that believes everything, one that breaks, one that hangs up."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline_project.evaluation.hostile_probe import Probe, hostile_requests, png_bomb, probe_server, send

IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(200)


class Careless(BaseHTTPRequestHandler):
    """Answers 200 to everything, and repeats headers in its answer."""

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        while length > 0:
            length -= len(self.rfile.read(min(length, 1 << 20)))
        self.send_response(200)
        given = self.headers.get("X-Request-ID", "")
        for line in given.replace("%0d%0a", "\r").split("\r"):
            name, _, value = line.partition(":")
            self.send_header(name if value else "X-Request-ID", value.strip() or line)
        self.end_headers()
        self.wfile.write(given.encode())

    do_GET = do_POST  # noqa: N815 named by the base class

    def log_message(self, *_):
        pass


class Broken(Careless):
    def do_POST(self):
        if "X-Request-ID" in self.headers and "script" in self.headers["X-Request-ID"]:
            self.close_connection = True
            return
        self.send_response(500)
        self.end_headers()

    do_GET = do_POST  # noqa: N815 named by the base class


@pytest.fixture
def serve():
    servers = []

    def start(handler):
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_server_that_believes_everything_fails_every_probe(serve):
    findings = probe_server(serve(Careless), IMAGE)
    probes = {probe.name for probe in hostile_requests(IMAGE)}
    failed = {finding.where for finding in findings if finding.code == "hostile_input"}
    assert probes - failed <= {"unknown method"}
    assert {"header_injection", "reflected_input"} <= {finding.code for finding in findings}


def test_server_errors_and_silence_are_findings(serve):
    findings = {finding.where: finding for finding in probe_server(serve(Broken), IMAGE)}
    assert findings["empty body"].detail.startswith("500")
    assert findings["script in X-Request-ID"].detail.startswith("no answer")
    assert findings["good image"].code == "not_serving"


def test_no_server_is_no_answer():
    assert send("http://127.0.0.1:9", Probe("nobody", b"", {})).status is None


def test_the_bomb_is_small_and_announces_much():
    bomb = png_bomb()
    assert len(bomb) < 5000
    assert int.from_bytes(bomb[16:20], "big") * int.from_bytes(bomb[20:24], "big") == 900_000_000
