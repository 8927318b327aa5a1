"""A Hub on loopback: what huggingface_hub and datasets ask of `HF_ENDPOINT`, answered from local folders.

    GET  /api/{models,datasets}/OWNER/NAME[/revision/REV]          facts and file list
    GET  /api/{models,datasets}/OWNER/NAME/tree/REV[/FOLDER]       files with sizes
    POST /api/{models,datasets}/OWNER/NAME/paths-info/REV          the same for given paths
    HEAD, GET /[datasets/]OWNER/NAME/resolve/REV/FILE              ETag, X-Repo-Commit, bytes
    GET  /pictures/N.jpg                                           a shop's picture server, on the same port

Everything else is 404 with the Hub's own error codes. Every request is kept in `asked`.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c45209e90a4c4f7d16b2e9d48503c7f3e83623ed"


@dataclass
class Hub:
    """Repositories by (kind, id), pictures by name, and what was asked."""

    repositories: dict[tuple[str, str], Path] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def files(self, kind: str, name: str) -> dict[str, Path]:
        folder = self.repositories[kind, name]
        return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def do_POST(self) -> None:
        self._route()

    def _route(self) -> None:
        hub = self.server.hub
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        path = unquote(urlsplit(self.path).path)
        hub.asked.append(f"{self.command} {path}")
        if found := re.fullmatch(r"/pictures/(.+)", path):
            picture = hub.pictures.get(found[1])
            return self._bytes(picture, {}) if picture is not None else self._missing("EntryNotFound")
        if found := re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)(?:/(.+))?", path):
            return self._api(found[1], found[2], found[3] or "", body)
        if found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve("dataset" if found[1] else "model", found[2], found[4])
        return self._missing("RepoNotFound")

    def _api(self, kind: str, name: str, rest: str, body: bytes) -> None:
        hub = self.server.hub
        if (kind, name) not in hub.repositories:
            return self._missing("RepoNotFound")
        files = hub.files(kind, name)
        if not rest or rest.startswith("revision/"):
            siblings = [{"rfilename": path} for path in files]
            facts = {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings, "private": False, "gated": False,
                     "disabled": False, "tags": [], "downloads": 0, "likes": 0,
                     "lastModified": "2024-07-01T00:00:00.000Z", "createdAt": "2024-05-01T00:00:00.000Z"}  # fmt: skip
            return self._json(facts)
        if rest.startswith("tree/"):
            folder = rest.split("/", 2)[2].rstrip("/") if rest.count("/") > 1 else ""
            recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() in ("true", "1")
            return self._json(self._tree(files, folder, recursive))
        if rest.startswith("paths-info/"):
            asked = json.loads(body) if body[:1] == b"{" else parse_qs(body.decode())
            return self._json([self._entry(path, files[path]) for path in asked["paths"] if path in files])
        return self._missing("EntryNotFound")

    def _tree(self, files: dict[str, Path], folder: str, recursive: bool) -> list[dict[str, Any]]:
        prefix = f"{folder}/" if folder else ""
        inside = {path: file for path, file in files.items() if path.startswith(prefix)}
        if recursive:
            return [self._entry(path, file) for path, file in inside.items()]
        entries: dict[str, dict[str, Any]] = {}
        for path, file in inside.items():
            head, _, tail = path.removeprefix(prefix).partition("/")
            entries[head] = (
                {"type": "directory", "oid": "0" * 40, "size": 0, "path": prefix + head}
                if tail
                else self._entry(path, file)
            )
        return list(entries.values())

    @staticmethod
    def _entry(path: str, file: Path) -> dict[str, Any]:
        return {
            "type": "file",
            "oid": hashlib.sha1(path.encode()).hexdigest(),
            "size": file.stat().st_size,
            "path": path,
        }

    def _resolve(self, kind: str, name: str, path: str) -> None:
        hub = self.server.hub
        if (kind, name) not in hub.repositories:
            return self._missing("RepoNotFound")
        file = hub.files(kind, name).get(path)
        if file is None:
            return self._missing("EntryNotFound")
        data = file.read_bytes()
        return self._bytes(data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT})

    def _json(self, document: Any) -> None:
        self._bytes(json.dumps(document).encode(), {"Content-Type": "application/json", "X-Repo-Commit": COMMIT})

    def _missing(self, code: str) -> None:
        self._bytes(b'{"error":"not found"}', {"X-Error-Code": code, "X-Repo-Commit": COMMIT}, status=404)

    def _bytes(self, data: bytes, headers: dict[str, str], status: int = 200) -> None:
        start, end = 0, len(data)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and status == 200:
            start, end = int(asked[1]), min(len(data), int(asked[2]) + 1 if asked[2] else len(data))
            status, headers = 206, headers | {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[start:end])

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub
        hub.port = self.server_address[1]


def start(hub: Hub) -> _Server:
    """Serve on a free port of 127.0.0.1 until `shutdown()`."""
    server = _Server(hub)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server
