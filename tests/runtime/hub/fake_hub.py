"""A small HTTP server that speaks what huggingface_hub calls to upload and download models."""

import base64
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_token_of_the_tests"
LARGE = 1000
"""Bytes from which on a file is stored by Git LFS."""


@dataclass
class Repo:
    """A repository: the commit of each branch, and the files of each commit."""

    private: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        self.messages.append(message)
        oid = hashlib.sha1(f"{branch} {len(self.commits)}".encode()).hexdigest()
        self.commits[oid], self.branches[branch] = files, oid
        return oid

    def resolve(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.branches.get(revision)


class FakeHub:
    """The server, its repositories, and what was asked of it.

    Attributes:
        repos: Repositories by name.
        downloads: Number of times that the content of each file was sent.
        cut: Files whose connection breaks in the middle.
        delay_s: Seconds before the content of a file is sent.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.downloads: Counter[str] = Counter()
        self.cut: set[str] = set()
        self.delay_s = 0.0
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def add(self, name: str, files: dict[str, bytes], *, private: bool = False) -> Repo:
        self.repos[name] = Repo(private=private)
        self.repos[name].commit("main", files, "first")
        return self.repos[name]

    def files(self, name: str, branch: str = "main") -> dict[str, bytes]:
        repo = self.repos[name]
        return repo.commits[repo.branches[branch]]


class _RefusedError(Exception):
    def __init__(self, status: int, code: str = "", message: str = "", *, body: dict[str, str] | None = None) -> None:
        self.status, self.headers = status, {"X-Error-Code": code, "X-Error-Message": message}
        self.body = json.dumps(body or {}).encode()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_HEAD(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_PUT(self) -> None:
        self._answer(self._put)

    def _answer(self, handle: Callable[[list[str], bytes], None]) -> None:
        body = self._body()
        try:
            handle([unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")], body)
        except _RefusedError as refused:
            self._send(refused.body, status=refused.status, headers=refused.headers)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, body: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: Any) -> None:
        self._send(json.dumps(value).encode(), headers={"Content-Type": "application/json"})

    @property
    def _has_token(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repo(self, name: str) -> Repo:
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not self._has_token):
            raise _RefusedError(404 if self._has_token else 401, "RepoNotFound", "Repository not found")
        return repo

    def _commit_of(self, repo: Repo, revision: str) -> str:
        oid = repo.resolve(revision)
        if oid is None:
            raise _RefusedError(404, "RevisionNotFound", "Invalid rev id")
        return oid

    def _get(self, parts: list[str], _: bytes) -> None:
        match parts:
            case ["api", "models", owner, name, "tree", revision, *_]:
                files = self._files(f"{owner}/{name}", revision)
                self._json([_entry(path, content) for path, content in files.items()])
            case ["api", "models", owner, name, *rest]:
                revision = rest[1] if rest else "main"
                oid = self._commit_of(self._repo(f"{owner}/{name}"), revision)
                siblings = [{"rfilename": path} for path in self._files(f"{owner}/{name}", revision)]
                self._json({"id": f"{owner}/{name}", "sha": oid, "siblings": siblings, "tags": []})
            case [owner, name, "resolve", revision, *file]:
                self._send_file(f"{owner}/{name}", revision, "/".join(file))
            case _:
                raise _RefusedError(404)

    def _files(self, name: str, revision: str) -> dict[str, bytes]:
        repo = self._repo(name)
        return repo.commits[self._commit_of(repo, revision)]

    def _send_file(self, name: str, revision: str, file: str) -> None:
        repo = self._repo(name)
        oid = self._commit_of(repo, revision)
        if file not in repo.commits[oid]:
            raise _RefusedError(404, "EntryNotFound", "Entry not found")
        content = repo.commits[oid][file]
        headers = {"X-Repo-Commit": oid, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        if self.command == "GET":
            time.sleep(self.hub.delay_s)
            self.hub.downloads[file] += 1
        if self.command == "GET" and file in self.hub.cut:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        self._send(content, headers=headers)

    def _post(self, parts: list[str], body: bytes) -> None:
        if parts == ["api", "validate-yaml"]:
            return self._json({"errors": [], "warnings": []})
        if not self._has_token:
            raise _RefusedError(401, "", "Invalid username or password.")
        plain = json.loads(body) if parts[-2:-1] != ["commit"] else body
        match parts:
            case ["api", "repos", "create"]:
                return self._create(f"{plain['organization']}/{plain['name']}", plain)
            case ["api", "models", owner, name, "branch", branch]:
                return self._branch(self._repo(f"{owner}/{name}"), branch)
            case ["api", "models", _, _, "preupload", _]:
                modes = [(file["path"], "lfs" if file["size"] >= LARGE else "regular") for file in plain["files"]]
                files = [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes]
                return self._json({"files": files})
            case [_, _, "info", "lfs", "objects", "batch"]:
                return self._json({"transfer": "basic", "objects": [self._upload(item) for item in plain["objects"]]})
            case ["api", "models", owner, name, "commit", branch]:
                return self._commit(f"{owner}/{name}", branch, [json.loads(line) for line in body.splitlines()])
        raise _RefusedError(404)

    def _create(self, name: str, plain: dict[str, Any]) -> None:
        if name.startswith("others/"):
            raise _RefusedError(403, "", "You don't have the rights to create a model under this namespace")
        if name in self.hub.repos:
            raise _RefusedError(409, "", "You already created this model repo", body={"url": f"{self.hub.url}/{name}"})
        private = plain.get("private", plain.get("visibility") == "private")
        self.hub.add(name, {".gitattributes": b"*.onnx filter=lfs"}, private=bool(private))
        self._json({"url": f"{self.hub.url}/{name}"})

    def _branch(self, repo: Repo, branch: str) -> None:
        if branch in repo.branches:
            raise _RefusedError(409, "", "Reference already exists")
        repo.branches[branch] = repo.branches["main"]
        self._json({})

    def _upload(self, item: dict[str, Any]) -> dict[str, Any]:
        href = {"href": f"{self.hub.url}/objects/{item['oid']}"}
        return item if item["oid"] in self.hub.objects else {**item, "actions": {"upload": href}}

    def _put(self, parts: list[str], body: bytes) -> None:
        assert hashlib.sha256(body).hexdigest() == parts[1]
        self.hub.objects[parts[1]] = body
        self._send(b"")

    def _commit(self, name: str, branch: str, lines: list[dict[str, Any]]) -> None:
        repo = self._repo(name)
        files = dict(repo.commits[self._commit_of(repo, branch)])
        message = ""
        for kind, value in [(line["key"], line["value"]) for line in lines]:
            if kind == "header":
                message = value["summary"]
            elif kind == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif kind == "deletedFile":
                del files[value["path"]]
        oid = repo.commit(branch, files, message)
        self._json({"success": True, "commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid})


def _entry(path: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
