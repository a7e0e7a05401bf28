"""A hub on this machine: one repository, served as the hub serves it, and failing the way networks do.

It answers what huggingface_hub asks for a download: what a model consists of, its tree, and each file, of which the
large ones (git LFS) are at another address.
"""

from __future__ import annotations

import hashlib
import json
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from urllib.parse import unquote, urlsplit

COMMIT = "c" * 40
LARGE = (".safetensors", ".bin", ".pt")
PIECE = 1 << 16


@dataclass(frozen=True)
class Request:
    """What was asked for: `path` is a file's in the repository or an API's, `first` the byte it was asked from."""

    method: str
    path: str
    first: int = 0


@dataclass
class FakeHub:
    """`break_after`: bytes of large files that are sent before every connection is broken, rudely or politely (then
    once only). `hold_after`: bytes before the hub falls silent and sets `silent`. `refuse`: status and error code by
    the beginning of a path. `lies`: what is sent for a file instead of its content.
    """

    repo: str
    files: dict[str, bytes]
    break_after: int | None = None
    polite: bool = False
    hold_after: int | None = None
    silent: Event = field(default_factory=Event)
    go_on: Event = field(default_factory=Event)
    ranges: bool = True
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)
    lies: dict[str, bytes] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    sent: int = 0
    url: str = ""
    cdn: str = ""

    def asked(self, suffix: str) -> list[Request]:
        """The requests that got content (or were to) of files that end in this."""
        return [
            r for r in self.requests if r.method == "GET" and r.path.startswith("cdn/") and r.path.endswith(suffix)
        ]

    def listing(self) -> list[dict[str, object]]:
        return [
            {
                "rfilename": name,
                "size": len(content),
                "blobId": etag_of_small(content),
                **(
                    {"lfs": {"size": len(content), "sha256": sha256(content), "pointerSize": 130}}
                    if large(name)
                    else {}
                ),
            }
            for name, content in self.files.items()
        ]

    def tree(self) -> list[dict[str, object]]:
        return [
            {
                "type": "file",
                "path": name,
                "size": len(content),
                "oid": etag_of_small(content),
                **(
                    {"lfs": {"size": len(content), "oid": sha256(content), "pointerSize": 130}} if large(name) else {}
                ),
            }
            for name, content in self.files.items()
        ]


def large(name: str) -> bool:
    return name.endswith(LARGE)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def etag_of_small(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path).lstrip("/")
        wanted = self.headers.get("Range")
        first = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted and hub.ranges else 0
        hub.requests.append(Request(self.command, path, first))
        for beginning, (status, code) in hub.refuse.items():
            if path.startswith(beginning):
                return self._send(status, {"X-Error-Code": code}, b"no")
        if path.startswith("cdn/"):
            return self._send_large(path.removeprefix("cdn/"), first)
        if path.startswith(f"api/models/{hub.repo}/tree/"):
            return self._send(200, {"Content-Type": "application/json"}, json.dumps(hub.tree()).encode())
        if path.startswith(f"api/models/{hub.repo}"):
            info = {"id": hub.repo, "sha": COMMIT, "siblings": hub.listing()}
            return self._send(200, {"Content-Type": "application/json"}, json.dumps(info).encode())
        name = path.removeprefix(f"{hub.repo}/resolve/").partition("/")[2]
        if not path.startswith(f"{hub.repo}/resolve/") or name not in hub.files:
            return self._send(401, {"X-Error-Code": "RepoNotFound"}, b"no")
        content = hub.files[name]
        if large(name):
            linked = {"X-Linked-Etag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
            return self._send(302, {"X-Repo-Commit": COMMIT, "Location": f"{hub.cdn}/{name}", **linked}, b"")
        return self._send(200, {"X-Repo-Commit": COMMIT, "ETag": f'"{etag_of_small(content)}"'}, content)

    def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_large(self, name: str, first: int) -> None:
        hub = self.hub
        content = hub.lies.get(name, hub.files[name])
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(content) - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        for start in range(first, len(content), PIECE):
            if hub.break_after is not None and hub.sent >= hub.break_after:
                return self._break()
            if hub.hold_after is not None and hub.sent >= hub.hold_after:
                hub.silent.set()
                hub.go_on.wait()
            piece = content[start : start + PIECE]
            try:
                self.wfile.write(piece)
            except OSError:  # who asked is gone
                self.close_connection = True
                return None
            hub.sent += len(piece)
        return None

    def _break(self) -> None:
        self.close_connection = True
        if self.hub.polite:
            self.hub.break_after = None
        else:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    hub.cdn = f"http://localhost:{server.server_address[1]}/cdn"  # another host, as the hub's large files are
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()
