"""A server on loopback that answers like arXiv, and the fetcher that asks it."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from looper.memory.ingestion.fetching import Fetcher
from tests.memory.ingestion.sources import FakeClock


class Server:
    """Serves `answers`: path -> list of (status, body) or (status, body, headers); the last one is repeated."""

    def __init__(self, clock):
        self.answers = {}
        self.requests = []
        """(path with question, time by the clock, headers)"""
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.requests.append((self.path, clock.now(), dict(self.headers)))
                key = self.path if self.path in server.answers else self.path.split("?")[0]
                queue = server.answers.get(key, [(404, b"none")])
                status, body, *rest = queue.pop(0) if len(queue) > 1 else queue[0]
                self.send_response(status)
                for name, value in (rest[0] if rest else {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    @property
    def paths(self):
        return [path for path, _, _ in self.requests]


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def server(clock):
    server = Server(clock)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture
def fetcher(tmp_path, clock):
    return Fetcher(cache=tmp_path / "cache", clock=clock)
