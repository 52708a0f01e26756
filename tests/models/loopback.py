"""A real HTTP server on loopback, whose answers a test writes."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from looper.records import Conversation, Message


class Loopback:
    """Answers each request with what `script(method, path, body)` returns: (status, body) or (status, body, headers).

    A body that is no string is sent as JSON. `requests` holds what came: (path, body, headers).
    """

    def __init__(self, script):
        self.script = script
        self.requests = []
        loopback = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                loopback.answer(self)

            do_GET = do_POST

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):  # a client that gave up waiting
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, handler):
        length = int(handler.headers.get("Content-Length") or 0)
        body = json.loads(handler.rfile.read(length)) if length else None
        self.requests.append((handler.path, body, dict(handler.headers)))
        status, content, *rest = self.script(handler.command, handler.path, body)
        data = (content if isinstance(content, str) else json.dumps(content)).encode()
        handler.send_response(status)
        for key, value in (rest[0] if rest else {}).items():
            handler.send_header(key, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def count(self, path):
        return sum(p == path for p, _, _ in self.requests)


@contextmanager
def serving(script):
    loopback = Loopback(script)
    thread = threading.Thread(target=loopback.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield loopback
    finally:
        loopback.server.shutdown()
        loopback.server.server_close()
        thread.join()


def asking(text, *, id=None, **settings):
    messages = (Message(role="system", content="Fix."), Message(role="user", content=text))
    return Conversation(id=id or text, messages=messages, **settings)
