"""One connection of a `HubServer`: the part of a hub's HTTP interface that clients use to read models."""

from __future__ import annotations

import json
import mmap
import socket
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote

from servers import bodies
from servers.hub_repositories import (
    BAD_TOKEN,
    NO_ENTRY,
    NO_REVISION,
    HubBlob,
    Refusal,
    Repository,
    no_repository,
    pointer_text,
)

if TYPE_CHECKING:
    from servers.hub import HubServer

#: What goes wrong with a request: this status and these headers, or for None a reset of the connection.
Trouble = tuple[int | None, Mapping[str, str]]


@dataclass(frozen=True)
class HubRequest:
    """One request to the hub itself; names of headers are in lower case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]

    @property
    def authorization(self) -> str | None:
        """The Authorization header."""
        return self.headers.get("authorization")


class Listening(ThreadingHTTPServer):
    """The hub's listener; it knows the hub for its connections."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, hub: HubServer) -> None:
        self.hub = hub
        super().__init__(("127.0.0.1", 0), HubAnswering)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go when they like: that is no error. Mistakes of the server itself are kept."""
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):
            self.hub.errors.append(error)


class Refused(Exception):
    """Ends the work on an answer."""

    def __init__(self, refusal: Refusal, commit: str | None = None) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
        self.commit = commit


class HubAnswering(BaseHTTPRequestHandler):
    """Answers to GET, HEAD and POST."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Listening

    def log_message(self, format: str, *args: object) -> None:
        """The record of requests is the log."""

    def do_GET(self) -> None:
        self.hub = self.server.hub
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        trouble = self.hub.arrived(HubRequest(self.command, path, query, headers))
        if trouble is not None:
            self._trouble(*trouble)
            return
        self.query = parse_qs(query)
        try:
            self._route([unquote(part) for part in path.lstrip("/").split("/")])
        except Refused as refused:
            self._refuse(refused.refusal, refused.commit)

    do_HEAD = do_POST = do_GET

    def _trouble(self, status: int | None, headers: Mapping[str, str]) -> None:
        if status is None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        self._send(status, {**headers}, b"as the test wants it")

    # Who asks for what

    def _route(self, parts: list[str]) -> None:
        match parts:
            case ["api", "agent-harnesses"]:
                self._send_json({"standardEnvVars": [], "harnesses": {}})
            case ["api", "whoami-v2"]:
                self._whoami()
            case ["api", "resolve-cache", "models", organisation, name, commit, *path]:
                self._resolve_cache(self._repository(f"{organisation}/{name}", True), commit, "/".join(path))
            case ["api", "models", organisation, name, *rest]:
                self._api(self._repository(f"{organisation}/{name}", False), rest)
            case [organisation, name, "resolve", revision, *path]:
                self._resolve(self._repository(f"{organisation}/{name}", True), revision, "/".join(path))
            case _:
                raise Refused(Refusal(404, None, "no such page"))

    def _token(self) -> str | None:
        shown = self.headers.get("Authorization")
        if shown is None:
            return None
        token = shown.removeprefix("Bearer ")
        if token not in self.hub.accounts:
            raise Refused(BAD_TOKEN)
        return token

    def _repository(self, name: str, for_content: bool) -> Repository:
        token = self._token()
        repository = self.hub.repositories.get(self.hub.renamed.get(name, name))
        if repository is None:
            raise Refused(no_repository(token))
        refusal = repository.refusal(token, for_content)
        if refusal is not None:
            raise Refused(refusal)
        if name in self.hub.renamed:
            raise Refused(Refusal(307, None, self.path.replace(name, repository.name, 1)))
        return repository

    def _commit(self, repository: Repository, revision: str) -> str:
        commit = repository.resolve(revision)
        if commit is None:
            raise Refused(NO_REVISION)
        return commit

    # Files

    def _blob(self, repository: Repository, commit: str, path: str) -> HubBlob:
        blob = repository.commits[commit].get(path)
        if blob is None:
            raise Refused(NO_ENTRY, commit)
        return blob

    def _resolve(self, repository: Repository, revision: str, path: str) -> None:
        commit = self._commit(repository, revision)
        blob = self._blob(repository, commit, path)
        head = {
            "X-Repo-Commit": commit,
            "X-Linked-Size": str(blob.size),
            "X-Linked-ETag": f'"{blob.etag}"',
            "Accept-Ranges": "bytes",
        }
        if blob.lfs:
            self._send(302, self._lied({**head, "Location": self.hub.signed(blob)}), b"Found. Redirecting")
            return
        place = f"/api/resolve-cache/models/{repository.name}/{commit}/{quote(path)}"
        self._send(307, {**head, "Location": place}, b"Temporary Redirect")

    def _resolve_cache(self, repository: Repository, commit: str, path: str) -> None:
        blob = self._blob(repository, self._commit(repository, commit), path)
        head = {"X-Repo-Commit": commit, "ETag": f'"{blob.etag}"', "Accept-Ranges": "bytes"}
        view = content_view(blob)
        asked = bodies.spans(self.headers["Range"], len(view)) if self.headers.get("Range") else None
        if asked == []:
            self._send(416, {**head, "Content-Range": f"bytes */{len(view)}"}, b"")
        elif asked and self.headers.get("If-Range") in (None, head["ETag"]):
            start, stop = asked[0]
            part = {**head, "Content-Range": f"bytes {start}-{stop - 1}/{len(view)}"}
            self._send(206, part, view[start:stop], file=True)
        else:
            self._send(200, self._lied(head), view, file=True)

    def _lied(self, head: dict[str, str]) -> dict[str, str]:
        """The head of an answer about a file with the lies that are switched on; None leaves a header out."""
        lies = {name.lower(): value for name, value in self.hub.lies.items()}
        kept = {name: value for name, value in head.items() if name.lower() not in lies}
        return kept | {name: value for name, value in self.hub.lies.items() if value is not None}

    # What is told about repositories

    def _api(self, repository: Repository, rest: list[str]) -> None:
        match rest:
            case []:
                self._info(repository, "main")
            case ["revision", revision]:
                self._info(repository, revision)
            case ["tree", revision, *folder]:
                self._tree(repository, revision, "/".join(folder))
            case ["paths-info", revision]:
                self._paths_info(repository, revision)
            case ["refs"]:
                self._refs(repository)
            case _:
                raise Refused(Refusal(404, None, "no such question"))

    def _info(self, repository: Repository, revision: str) -> None:
        commit = self._commit(repository, revision)
        siblings = [self._sibling(path, blob) for path, blob in repository.commits[commit].items()]
        told = {
            "_id": commit[:24],
            "id": repository.name,
            "modelId": repository.name,
            "author": repository.name.partition("/")[0],
            "sha": commit,
            "private": repository.private,
            "gated": "auto" if repository.gated else False,
            "disabled": repository.disabled,
            "lastModified": "2026-01-01T00:00:00.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": siblings + [{"rfilename": path} for path in self.hub.invented_paths],
        }
        self._send_json(told)

    def _sibling(self, path: str, blob: HubBlob) -> dict[str, Any]:
        if "blobs" not in self.query:
            return {"rfilename": path}
        entry = _entry(path, blob)
        told = {"rfilename": path, "size": blob.size, "blobId": blob.git_sha1}
        if blob.lfs:
            told["lfs"] = {**entry["lfs"], "sha256": blob.sha256}
        return told

    def _tree(self, repository: Repository, revision: str, folder: str) -> None:
        files = repository.commits[self._commit(repository, revision)]
        inside = f"{folder}/" if folder else ""
        entries: dict[str, dict[str, Any]] = {}
        for path, blob in sorted(files.items()):
            if not path.startswith(inside):
                continue
            above, slash, _ = path.removeprefix(inside).partition("/")
            if slash and self.query.get("recursive") not in (["true"], ["True"], ["1"]):
                name = inside + above
                entries[name] = {"type": "directory", "path": name, "size": 0, "oid": "0" * 40}
            else:
                entries[path] = _entry(path, blob)
        if folder and not entries:
            raise Refused(NO_ENTRY)
        made_up = HubBlob.of(b"invented", False)
        self._send_json([*entries.values(), *(_entry(path, made_up) for path in self.hub.invented_paths)])

    def _paths_info(self, repository: Repository, revision: str) -> None:
        files = repository.commits[self._commit(repository, revision)]
        if "json" in self.headers.get("Content-Type", ""):
            asked = json.loads(self.body)["paths"]
        else:
            asked = parse_qs(self.body.decode()).get("paths", [])
        self._send_json([_entry(path, files[path]) for path in asked if path in files])

    def _refs(self, repository: Repository) -> None:
        branches = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit}
            for name, commit in repository.refs.items()
        ]
        self._send_json({"branches": branches, "tags": [], "converts": []})

    def _whoami(self) -> None:
        token = self._token()
        if token is None:
            raise Refused(BAD_TOKEN)
        name = self.hub.accounts[token]
        self._send_json(
            {"type": "user", "name": name, "fullname": name, "orgs": [], "auth": {"type": "token"}}
        )

    # Sending

    def _refuse(self, refusal: Refusal, commit: str | None) -> None:
        if refusal.status == 307:
            self._send(307, {"Location": refusal.message}, b"Temporary Redirect")
            return
        head = {"X-Error-Message": refusal.message, "Content-Type": "application/json"}
        if refusal.code is not None:
            head["X-Error-Code"] = refusal.code
        if commit is not None:
            head["X-Repo-Commit"] = commit
        self._send(refusal.status, head, json.dumps({"error": refusal.message}).encode())

    def _send_json(self, document: Any) -> None:
        self._send(200, {"Content-Type": "application/json"}, json.dumps(document).encode())

    def _send(
        self, status: int, head: Mapping[str, str], body: bytes | memoryview, file: bool = False
    ) -> None:
        self.send_response(status)
        names = {name.lower() for name in head}
        for name, value in head.items():
            self.send_header(name, value)
        if "content-length" not in names:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            if file:
                self.hub.counted(len(body))  # First: who has received it finds it counted.
            self.wfile.write(body)


def content_view(blob: HubBlob) -> memoryview:
    """The content without a copy."""
    if isinstance(blob.content, bytes):
        return memoryview(blob.content)
    return _mapped(blob.content) if blob.size else memoryview(b"")


def _mapped(path: Path) -> memoryview:
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _entry(path: str, blob: HubBlob) -> dict[str, Any]:
    told: dict[str, Any] = {"type": "file", "path": path, "size": blob.size, "oid": blob.git_sha1}
    if blob.lfs:
        pointer = pointer_text(blob.sha256, blob.size)
        told["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": len(pointer)}
    return told
