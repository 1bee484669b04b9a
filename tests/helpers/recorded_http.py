"""A local HTTP server with replies that were recorded, or that a function gives.

With `MEDQLORA_OPENSEARCH=URL` the requests go to that server, and `MEDQLORA_RECORD=1` writes them down anew.
"""

import gzip
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple


class Request(NamedTuple):
    """A request; `body` is its JSON, lines of JSON as a list, or None."""

    method: str
    path: str
    body: Any


#: status and JSON of the reply
Reply = tuple[int, Any]
Answer = Callable[[Request], Reply]


@contextmanager
def served(answer: Answer) -> Iterator[str]:
    """The URL of a server that answers by the function."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet: two wait for each other

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is printed."""

        def handle_one(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                data = gzip.decompress(data)
            status, reply = answer(Request(self.command, self.path, _parsed(data)))
            content = b"" if self.command == "HEAD" else json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = handle_one  # noqa: N815  # http.server's names

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Recording:
    """Recorded replies: each request has to be one that was recorded, and gets its replies in their order.

    Args:
        file: the exchanges.
        live: a server that answers instead; what it answers is kept.
    """

    def __init__(self, file: Path, live: str | None = None) -> None:
        self.file, self.live = file, live
        self.exchanges: list[dict[str, Any]] = [] if live else json.loads(file.read_text("utf-8"))
        self._left = list(self.exchanges)
        self.unknown: list[Request] = []

    def answer(self, request: Request) -> Reply:
        """The recorded reply; 599 for a request that was not recorded."""
        if self.live is not None:
            status, reply = _forwarded(self.live, request)
            self.exchanges.append({**request._asdict(), "status": status, "reply": reply})
            return status, reply
        for exchange in self._left:
            if Request(exchange["method"], exchange["path"], exchange["body"]) == request:
                self._left.remove(exchange)
                return exchange["status"], exchange["reply"]
        self.unknown.append(request)
        return 599, {"error": {"type": "not_recorded", "reason": f"{request.method} {request.path}"}}

    def save(self) -> None:
        """Writes the exchanges, one a line."""
        lines = ",\n".join(json.dumps(one, ensure_ascii=False) for one in self.exchanges)
        self.file.write_text(f"[\n{lines}\n]\n", "utf-8")


def _parsed(data: bytes) -> Any:
    if not data:
        return None
    try:
        return json.loads(data)
    except ValueError:
        return [json.loads(line) for line in data.splitlines() if line]


def _forwarded(live: str, request: Request) -> Reply:
    body = None
    if isinstance(request.body, list):
        body = "".join(json.dumps(line) + "\n" for line in request.body).encode()
    elif request.body is not None:
        body = json.dumps(request.body).encode()
    sent = urllib.request.Request(f"{live}{request.path}", data=body, method=request.method)
    kind = "application/x-ndjson" if isinstance(request.body, list) else "application/json"
    sent.add_header("Content-Type", kind)
    try:
        with urllib.request.urlopen(sent, timeout=60) as answer:
            content, status = answer.read(), int(answer.status)
    except urllib.error.HTTPError as error:
        content, status = error.read(), error.code
    return status, json.loads(content) if content else None
