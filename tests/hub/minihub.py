"""A small Hub server on loopback for tests: repositories, commits, LFS objects, access control, and faults on order.

It speaks the part of the Hub's HTTP interface that ``huggingface_hub`` 2 uses without Xet, so clients need
``HF_HUB_DISABLE_XET=1`` besides ``HF_ENDPOINT``. It was written from what the client sends and expects: passing it
does not prove behaviour against the real Hub. Tags, pull requests, multipart uploads, paging and copies are missing.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

_LFS_SUFFIXES = (".safetensors", ".parquet", ".png", ".model")
_DATE = "2000-01-01T00:00:00.000Z"  # The client parses dates but no test looks at them.


class StoredFile(NamedTuple):
    """A file of a commit; ``oid`` is git's hash, by which the client recognises an unchanged regular file."""

    sha256: str
    size: int
    lfs: bool
    oid: str


@dataclass
class Commit:
    files: dict[str, StoredFile]
    parent: str | None
    title: str


@dataclass
class Repository:
    owner: str
    private: bool
    gated: str | bool = False
    readers: set[str] = field(default_factory=set)
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)

    def resolve(self, revision: str) -> str | None:
        """Commit hash of a branch or a hash."""
        return self.branches.get(revision) or (revision if revision in self.commits else None)

    def commit(self, branch: str, files: dict[str, StoredFile], title: str) -> str:
        parent = self.branches.get(branch)
        content = json.dumps([sorted(files.items()), parent, title, len(self.commits)])
        oid = hashlib.sha1(content.encode()).hexdigest()
        self.commits[oid] = Commit(files, parent, title)
        self.branches[branch] = oid
        return oid


class Hub:
    """State of the server; it survives a restart of the server in front of it.

    Attributes:
        users: user name by access token.
        requests: "METHOD path" of every request, in order.
        uploads: SHA-256 of every LFS object received, in order, repeats included.
        failing: HTTP status that write requests get, while ``failures_left`` is above zero.
        dies_after_uploads: the server falls silent once it holds this many LFS objects.
    """

    def __init__(self, root: Path, users: dict[str, str]) -> None:
        self.root = root
        self.users = users
        self.repos: dict[tuple[str, str], Repository] = {}
        self.lock = threading.RLock()
        self.requests: list[str] = []
        self.uploads: list[str] = []
        self.failing = 503
        self.failures_left = 0
        self.dies_after_uploads: int | None = None
        self.dead = False

    def blob(self, sha256: str) -> Path:
        return self.root / sha256

    def put(self, data: bytes) -> StoredFile:
        sha256 = hashlib.sha256(data).hexdigest()
        self.blob(sha256).write_bytes(data)
        oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        return StoredFile(sha256, len(data), False, oid)

    def read(self, repo_type: str, repo_id: str, path: str) -> bytes:
        return self.blob(self.files(repo_type, repo_id)[path].sha256).read_bytes()

    def files(self, repo_type: str, repo_id: str) -> dict[str, StoredFile]:
        """Files at the head of ``main``."""
        repo = self.repos[repo_type, repo_id]
        return repo.commits[repo.branches["main"]].files


class RefusalError(Exception):
    """An answer other than success."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})


class SilenceError(Exception):
    """The connection ends without an answer."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args: Any) -> None:
        pass

    def handle_any(self) -> None:
        url = urlsplit(self.path)
        try:
            data = self._body()
            with self.hub.lock:
                if self.hub.dead:
                    raise SilenceError
                self.hub.requests.append(f"{self.command} {url.path}")
                self._route(url.path, {k: v[0] for k, v in parse_qs(url.query).items()}, data)
        except RefusalError as refusal:
            self._send(refusal.status, {"error": str(refusal)}, refusal.headers)
        except (SilenceError, ConnectionError):
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = handle_any  # noqa: N815 - names that the base class looks up

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(
        self, status: int, answer: Any = None, headers: dict[str, str] | None = None, raw: bytes | None = None
    ) -> None:
        data = raw if raw is not None else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    @property
    def _base(self) -> str:
        return f"http://{self.headers.get('Host')}"

    def _url(self, repo_type: str, repo_id: str) -> str:
        return f"{self._base}/{'datasets/' if repo_type == 'dataset' else ''}{repo_id}"

    def _user(self) -> str | None:
        authorization = self.headers.get("Authorization", "")
        if not authorization.startswith("Bearer "):
            return None
        if (user := self.hub.users.get(authorization.removeprefix("Bearer "))) is None:
            raise RefusalError(401, "Invalid credentials in Authorization header")
        return user

    def _require_user(self) -> str:
        if (user := self._user()) is None:
            raise RefusalError(401, "Invalid username or password.")
        return user

    def _route(self, path: str, query: dict[str, str], data: bytes) -> None:
        hub = self.hub
        # A slash inside a segment arrives quoted, as in a revision named refs/pr/1.
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if self.command in ("POST", "PUT") and hub.failures_left > 0:
            hub.failures_left -= 1
            raise RefusalError(hub.failing, "fault on order")
        if path == "/api/validate-yaml":
            return self._send(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(data))
        if parts[0] == "_lfs":
            return self._store_lfs(parts[1], data)
        if parts[0] == "api" and parts[1] in ("models", "datasets"):
            repo_type, repo_id = parts[1].removesuffix("s"), "/".join(parts[2:4])
            return self._repository(repo_type, repo_id, parts[4:], query, data)
        repo_type = "dataset" if parts[0] == "datasets" else "model"
        if repo_type == "dataset":
            parts = parts[1:]
        if len(parts) > 4 and parts[1].endswith(".git"):
            return self._lfs_batch(json.loads(data)["objects"])
        if len(parts) > 4 and parts[2] == "resolve":
            return self._download(repo_type, "/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        raise RefusalError(404, f"no route {self.command} {path}")

    def _create(self, request: dict[str, Any]) -> None:
        user = self._require_user()
        owner = request.get("organization") or user
        repo_id, repo_type = f"{owner}/{request['name']}", request.get("type") or "model"
        if owner != user:
            raise RefusalError(
                403, f"You don't have the rights to create a {repo_type} under the namespace {owner!r}"
            )
        answer = {"url": self._url(repo_type, repo_id)}
        if (repo_type, repo_id) in self.hub.repos:
            return self._send(409, {"error": "You already created this repo", **answer})
        repo = Repository(owner, private=request.get("visibility") == "private")
        repo.commit("main", {".gitattributes": self.hub.put(b"*.safetensors filter=lfs\n")}, "initial commit")
        self.hub.repos[repo_type, repo_id] = repo
        return self._send(200, {**answer, "name": repo_id, "id": repo_id})

    def _lfs_batch(self, objects: list[dict[str, Any]]) -> None:
        self._require_user()
        answers: list[dict[str, Any]] = []
        for entry in objects:
            answer: dict[str, Any] = {"oid": entry["oid"], "size": entry["size"]}
            if not self.hub.blob(entry["oid"]).exists():
                answer["actions"] = {"upload": {"href": f"{self._base}/_lfs/{entry['oid']}", "header": {}}}
            answers.append(answer)
        self._send(200, {"transfer": "basic", "objects": answers})

    def _store_lfs(self, oid: str, data: bytes) -> None:
        if self.hub.put(data).sha256 != oid:
            raise RefusalError(400, "the content does not have the announced hash")
        self.hub.uploads.append(oid)
        if len(self.hub.uploads) == self.hub.dies_after_uploads:
            self.hub.dead = True
            raise SilenceError
        self._send(200, {})

    def _readable(self, repo_type: str, repo_id: str, *, content: bool = False) -> Repository:
        """The repository, if it exists for this user; its files too where ``content`` is asked for."""
        user, repo = self._user(), self.hub.repos.get((repo_type, repo_id))
        if repo is None or (repo.private and user != repo.owner):
            raise RefusalError(404 if user else 401, "Repository not found", "RepoNotFound")
        if content and repo.gated and user != repo.owner and user not in repo.readers:
            raise RefusalError(403 if user else 401, "Access to this repository is restricted", "GatedRepo")
        return repo

    def _repository(
        self, repo_type: str, repo_id: str, rest: list[str], query: dict[str, str], data: bytes
    ) -> None:
        repo = self._readable(repo_type, repo_id)
        operation, revision = rest[0] if rest else "revision", rest[1] if len(rest) > 1 else "main"
        if operation in ("preupload", "commit", "settings") and self._require_user() != repo.owner:
            raise RefusalError(403, "write access denied")
        if operation == "settings":
            settings = json.loads(data)
            if "visibility" in settings:
                repo.private = settings["visibility"] == "private"
            repo.gated = settings.get("gated", repo.gated)
            return self._send(200, {})
        if (oid := repo.resolve(revision)) is None:
            raise RefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        files = repo.commits[oid].files
        if operation == "revision":
            return self._send(200, self._info(repo_id, repo, oid))
        if operation == "preupload":
            return self._send(
                200, {"files": [_upload_mode(entry, files) for entry in json.loads(data)["files"]]}
            )
        if operation == "commit":
            return self._commit(repo, self._url(repo_type, repo_id), revision, files, data)
        if operation == "tree":
            return self._send(
                200,
                _tree(files, "/".join(rest[2:]), recursive=query.get("recursive") in ("true", "True", "1")),
            )
        if operation == "paths-info":
            return self._paths_info(files, data)
        raise RefusalError(404, f"no operation {operation}")

    def _info(self, repo_id: str, repo: Repository, oid: str) -> dict[str, Any]:
        files = repo.commits[oid].files
        card: dict[str, Any] = {}
        if "README.md" in files:
            text = self.hub.blob(files["README.md"].sha256).read_text(encoding="utf-8")
            if match := re.match(r"---\n(.*?)\n---", text, re.DOTALL):
                card = yaml.safe_load(match.group(1))
        return {
            "_id": "0" * 24, "id": repo_id, "author": repo.owner, "sha": oid, "private": repo.private,
            "gated": repo.gated, "disabled": False, "lastModified": _DATE, "createdAt": _DATE,
            "tags": card.get("tags", []), "downloads": 0, "likes": 0, "cardData": card,
            "siblings": [{"rfilename": path} for path in sorted(files)],
        }  # fmt: skip

    def _commit(
        self, repo: Repository, url: str, branch: str, files: dict[str, StoredFile], data: bytes
    ) -> None:
        files, title = dict(files), ""
        for line in data.splitlines():
            entry = json.loads(line)
            kind, value = entry["key"], entry["value"]
            if kind == "header":
                title = value["summary"]
            elif kind == "file":
                files[value["path"]] = self.hub.put(base64.b64decode(value["content"]))
            elif kind == "lfsFile":
                if not self.hub.blob(value["oid"]).exists():
                    raise RefusalError(400, f"{value['path']} points to an object that was not uploaded")
                oid = hashlib.sha1(value["oid"].encode()).hexdigest()
                files[value["path"]] = StoredFile(value["oid"], value["size"], True, oid)
            elif kind == "deletedFile":
                del files[value["path"]]
            else:
                raise RefusalError(400, f"no commit entry {kind}")
        oid = repo.commit(branch, files, title)
        # The client reads type and name of the repository back from this address.
        self._send(200, {"commitOid": oid, "commitUrl": f"{url}/commit/{oid}", "hookOutput": ""})

    def _paths_info(self, files: dict[str, StoredFile], data: bytes) -> None:
        if "json" in self.headers.get("Content-Type", ""):
            paths = json.loads(data)["paths"]
        else:
            paths = parse_qs(data.decode())["paths"]
        known = [_entry(path, files[path]) for path in paths if path in files]
        folders = [
            p for p in paths if p not in files and any(f.startswith(f"{p.rstrip('/')}/") for f in files)
        ]
        self._send(200, known + [_folder(path) for path in folders])

    def _download(self, repo_type: str, repo_id: str, revision: str, path: str) -> None:
        repo = self._readable(repo_type, repo_id, content=True)
        if (oid := repo.resolve(revision)) is None:
            raise RefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        if (stored := repo.commits[oid].files.get(path)) is None:
            raise RefusalError(404, "Entry not found", "EntryNotFound")
        headers = {"X-Repo-Commit": oid, "ETag": f'"{stored.sha256 if stored.lfs else stored.oid}"'}
        if stored.lfs:
            headers |= {"X-Linked-Etag": f'"{stored.sha256}"', "X-Linked-Size": str(stored.size)}
        data = self.hub.blob(stored.sha256).read_bytes()
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if self.command == "HEAD" or wanted is None:
            return self._send(200, None, headers, raw=data)
        first, last = wanted.groups()
        start = int(first) if first else max(0, stored.size - int(last))
        stop = min(int(last) + 1, stored.size) if first and last else stored.size
        if start >= stored.size:
            raise RefusalError(416, "range")
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{stored.size}"
        return self._send(206, None, headers, raw=data[start:stop])


def _upload_mode(entry: dict[str, Any], files: dict[str, StoredFile]) -> dict[str, Any]:
    current = files.get(entry["path"])
    oid = None if current is None else current.sha256 if current.lfs else current.oid
    mode = "lfs" if entry["path"].endswith(_LFS_SUFFIXES) else "regular"
    return {"path": entry["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}


def _entry(path: str, stored: StoredFile) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "oid": stored.oid, "size": stored.size}
    if stored.lfs:
        entry["lfs"] = {"oid": stored.sha256, "size": stored.size, "pointerSize": 134}
    return entry


def _folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}


def _tree(files: dict[str, StoredFile], folder: str, *, recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{folder}/" if folder else ""
    inside = {path: stored for path, stored in sorted(files.items()) if path.startswith(prefix)}
    if folder and not inside:
        raise RefusalError(404, f"{folder} does not exist", "EntryNotFound")
    entries, folders = [], set()
    for path, stored in inside.items():
        parents = path.removeprefix(prefix).split("/")[:-1]
        for depth in range(1, (len(parents) if recursive else min(1, len(parents))) + 1):
            folders.add(prefix + "/".join(parents[:depth]))
        if recursive or not parents:
            entries.append(_entry(path, stored))
    return [_folder(path) for path in sorted(folders)] + entries


@contextmanager
def serve(hub: Hub, port: int = 0) -> Iterator[str]:
    """Run a server in front of ``hub`` and give its address; port 0 picks a free one."""
    handler = type("HubHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
