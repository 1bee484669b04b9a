"""A local stand-in of the Hub's endpoints that an upload by huggingface_hub calls.

It keeps what arrives as the Hub does: large files by their SHA-256, a repository's files by commit. It is written from
what huggingface_hub 1.33 sends and expects; the real Hub, and its Xet transfer, are not part of it.
"""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml


class HubStandIn:
    """A server on this machine, as long as the block runs.

    Attributes:
        repositories: name → whether it is private.
        blobs: SHA-256 → the bytes of a large file.
        commits: (repository, path → content) of each commit, in order.
        requests: "METHOD path" of each request, in order.
        cards: the cards that were validated.
        large: bytes from which a file counts as large.
        broken: SHA-256 of files whose next upload breaks off.
        refused: whether the token may not write.
    """

    def __init__(self, large: int = 1000) -> None:
        self.repositories: dict[str, bool] = {}
        self.blobs: dict[str, bytes] = {}
        self.commits: list[tuple[str, dict[str, bytes]]] = []
        self.requests: list[str] = []
        self.cards: list[str] = []
        self.tokens: set[str] = set()
        self.large = large
        self.broken: set[str] = set()
        self.refused = False

    def __enter__(self) -> "HubStandIn":
        stand_in = self

        class Handler(_Handler):
            hub = stand_in

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    hub: HubStandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: object) -> None:
        pass

    def _reply(self, value: Any, status: int = 200, **headers: str) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **headers,
        }.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _begin(self) -> str:
        path = self.path.partition("?")[0]
        self.hub.requests.append(f"{self.command} {path}")
        self.hub.tokens.add(str(self.headers.get("Authorization")))
        return path

    def do_GET(self) -> None:
        path = self._begin()
        name = path.removeprefix("/api/models/").removesuffix("/revision/main")
        if name not in self.hub.repositories:
            self._reply({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            return
        self._reply({"id": name, "modelId": name, "private": self.hub.repositories[name], "siblings": []})

    def do_PUT(self) -> None:
        digest = self._begin().rpartition("/")[2]
        content = self._body()
        if digest in self.hub.broken:
            self.hub.broken.discard(digest)
            self.close_connection = True
            self._reply({"error": "gone"}, 400)
            return
        assert hashlib.sha256(content).hexdigest() == digest
        self.hub.blobs[digest] = content
        self._reply({})

    def do_POST(self) -> None:
        path, body = self._begin(), self._body()
        if self.hub.refused:
            self._reply({"error": "no right to write"}, 403)
        elif path == "/api/repos/create":
            values = json.loads(body)
            name = f"{values['organization']}/{values['name']}"
            self.hub.repositories[name] = bool(values.get("private") or values.get("visibility") == "private")
            self._reply({"url": f"{self.hub.address}/{name}", "name": name})
        elif path == "/api/validate-yaml":
            card = json.loads(body)["content"]
            yaml.safe_load(card.split("---")[1])
            self.hub.cards.append(card)
            self._reply({"errors": [], "warnings": []})
        elif path.endswith("/preupload/main"):
            self._reply({"files": [self._mode(file) for file in json.loads(body)["files"]]})
        elif path.endswith("/objects/batch"):
            objects = [self._object(one) for one in json.loads(body)["objects"]]
            self._reply({"transfer": "basic", "objects": objects})
        elif path.endswith("/commit/main"):
            self._commit(path.removeprefix("/api/models/").removesuffix("/commit/main"), body)
        else:
            self._reply({"error": f"unknown {path}"}, 500)

    def _mode(self, file: dict[str, Any]) -> dict[str, Any]:
        mode = "lfs" if file["size"] >= self.hub.large else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}

    def _object(self, one: dict[str, Any]) -> dict[str, Any]:
        found = {"oid": one["oid"], "size": one["size"]}
        if one["oid"] in self.hub.blobs:
            return found
        return {**found, "actions": {"upload": {"href": f"{self.hub.address}/upload/{one['oid']}"}}}

    def _commit(self, name: str, body: bytes) -> None:
        files: dict[str, bytes] = {}
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
        self.hub.commits.append((name, files))
        url = f"{self.hub.address}/{name}/commit/{'0' * 40}"
        self._reply(
            {
                "success": True,
                "commitOid": "0" * 40,
                "commitUrl": url,
                "hookOutput": "",
                "pullRequestUrl": None,
            }
        )
