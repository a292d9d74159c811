"""A hub of the shape of Hugging Face's: the routes that clients use, with the bytes of LFS files on another port."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from rigs.scripted_server import Asked, Reply, Server, file_reply, git_blob, sha256

_REVISION = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+|[^/]+)(?:/revision/(?P<rev>.+))?")
_TREE = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+|[^/]+)/tree/(?P<rev>[^/]+|refs/pr/\d+)")
_XET_TOKEN = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+|[^/]+)/xet-read-token/(?P<rev>[^/]+)")
_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+|[^/]+)/resolve/(?P<rev>[0-9a-f]{40}|[^/]+|refs/pr/\d+)/(?P<path>.+)")


@dataclass
class Repo:
    files: dict[str, bytes]
    lfs: frozenset[str] = frozenset()
    """Paths of which the bytes are in LFS; the others are in git."""

    branches: tuple[str, ...] = ("main", "refs/pr/1")
    gated: str | bool = False
    private: bool = False
    license: str | None = "apache-2.0"
    tokens: frozenset[str] = frozenset()
    """Who may read what is gated or private."""

    disabled: bool = False
    tampered: dict[str, bytes] = field(default_factory=dict)
    """What is sent instead of the file of that path."""

    note: str = ""
    """Of the commit: another one makes another commit of the same files."""

    xet: dict[str, str] = field(default_factory=dict)
    """The xet hash of each path that is in xet storage. Such a path is in LFS too."""

    @property
    def commit(self) -> str:
        told = json.dumps({path: sha256(content) for path, content in sorted(self.files.items())}) + self.note
        return hashlib.sha1(told.encode()).hexdigest()


class Hub:
    """Two servers: the hub, and the CDN that it redirects to. `valid` are the tokens that it knows."""

    def __init__(self, repos: Mapping[str, Repo], *, page: int = 1000, valid: frozenset[str] = frozenset()) -> None:
        self.repos = dict(repos)
        self.page = page
        self.valid = valid
        self.access: dict[str, object] = {}
        """What `xet-read-token` answers: `casUrl`, `accessToken`, `exp`. Nothing: there is no such route."""

        self.server = Server(self._hub)
        self.cdn = Server(self._cdn)

    @property
    def url(self) -> str:
        return self.server.url

    def __enter__(self) -> Hub:
        self.server.__enter__()
        self.cdn.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.cdn.__exit__()
        self.server.__exit__()

    # -- the hub

    def _hub(self, asked: Asked) -> Reply:
        token = asked.headers.get("Authorization", "").removeprefix("Bearer ") or None
        if token is not None and token not in self.valid:
            return Reply(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
        # `gpt2/tree/main` could be a repository gpt2/tree: the more special routes come first.
        for pattern, answer in (
            (_XET_TOKEN, self._xet_token),
            (_TREE, self._tree),
            (_RESOLVE, self._resolve),
            (_REVISION, self._info),
        ):
            found = pattern.fullmatch(asked.path)
            if found is None:
                continue
            repo = self.repos.get(found["repo"])
            if repo is None or (repo.private and token not in repo.tokens):
                return _error(401 if token is None else 404, "RepoNotFound", "Repository not found")
            if repo.disabled:
                return _error(403, "DisabledRepo", "Access to this resource is disabled.")
            if (found["rev"] or "main") not in (*repo.branches, repo.commit):
                return _error(404, "RevisionNotFound", f"Invalid rev id: {found['rev']}")
            return answer(asked, found, repo, token)
        return Reply(404, {"Content-Type": "text/html"}, b"<!doctype html><html>not here</html>")

    def _info(self, asked: Asked, found: re.Match[str], repo: Repo, token: str | None) -> Reply:
        card = {} if repo.license is None else {"license": repo.license}
        siblings = [{"rfilename": path} for path in sorted(repo.files)]
        return _json(
            {
                "id": found["repo"],
                "modelId": found["repo"],
                "sha": repo.commit,
                "private": repo.private,
                "gated": repo.gated,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [f"license:{repo.license}"] if repo.license else [],
                "cardData": card,
                "siblings": siblings,
            }
        )

    def _tree(self, asked: Asked, found: re.Match[str], repo: Repo, token: str | None) -> Reply:
        start = re.search(r"cursor=(\d+)", asked.query)
        at = int(start[1]) if start else 0
        entries = [_entry(path, repo) for path in sorted(repo.files)]
        folders = sorted({path.rpartition("/")[0] for path in repo.files if "/" in path})
        entries += [{"type": "directory", "path": folder, "oid": "0" * 40, "size": 0} for folder in folders]
        headers = {}
        if at + self.page < len(entries):
            address = f"{self.url}{asked.target.partition('?')[0]}?recursive=true&cursor={at + self.page}"
            headers["Link"] = f'<{address}>; rel="next"'
        return _json(entries[at : at + self.page], headers)

    def _xet_token(self, asked: Asked, found: re.Match[str], repo: Repo, token: str | None) -> Reply:
        if repo.gated and token not in repo.tokens:
            return _error(401 if token is None else 403, "GatedRepo", "Access to this model is restricted")
        return _json(self.access) if self.access else Reply(404)

    def _resolve(self, asked: Asked, found: re.Match[str], repo: Repo, token: str | None) -> Reply:
        path = found["path"]
        if repo.gated and token not in repo.tokens:
            return _error(401 if token is None else 403, "GatedRepo", "Access to this model is restricted")
        content = repo.files.get(path)
        headers = {"X-Repo-Commit": repo.commit}
        if content is None:
            return _error(404, "EntryNotFound", "Entry not found", headers)
        if path in repo.lfs:
            xet = {"X-Xet-Hash": repo.xet[path]} if path in repo.xet else {}
            return Reply(
                302,
                {
                    **headers,
                    **xet,
                    "Location": f"{self.cdn.url}/{found['repo']}/{path}?X-Amz-Signature=signed-by-the-hub",
                    "X-Linked-Etag": f'"{sha256(content)}"',
                    "X-Linked-Size": str(len(content)),
                    "ETag": f'"{sha256(content)[:32]}"',
                },
            )
        if asked.path.startswith(f"/{found['repo']}/resolve/{repo.commit}/") and "cache=1" not in asked.query:
            # As the hub does: to the same host, by an address without it.
            target = f"/{found['repo']}/resolve/{repo.commit}/{path}?cache=1"
            return Reply(307, {**headers, "Location": target, "ETag": f'"{git_blob(content)}"'})
        return file_reply(asked, repo.tampered.get(path, content), {**headers, "ETag": f'"{git_blob(content)}"'})

    # -- the CDN

    def _cdn(self, asked: Asked) -> Reply:
        if "signed-by-the-hub" not in asked.query:
            return Reply(403)
        owner, name, path = asked.path.lstrip("/").split("/", 2)
        repo = self.repos[f"{owner}/{name}"]
        return file_reply(asked, repo.tampered.get(path, repo.files[path]))


def _entry(path: str, repo: Repo) -> dict[str, object]:
    content = repo.files[path]
    if path not in repo.lfs:
        return {"type": "file", "path": path, "size": len(content), "oid": git_blob(content)}
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (
        sha256(content).encode(),
        len(content),
    )
    xet = {"xetHash": repo.xet[path]} if path in repo.xet else {}
    lfs = {"oid": sha256(content), "size": len(content), "pointerSize": len(pointer)}
    return {"type": "file", "path": path, "size": len(content), "oid": git_blob(pointer), "lfs": lfs, **xet}


def _json(value: object, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(200, {"Content-Type": "application/json", **(headers or {})}, json.dumps(value).encode())


def _error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    told = {"X-Error-Code": code, "X-Error-Message": message, "Content-Type": "application/json", **(headers or {})}
    return Reply(status, told, json.dumps({"error": message}).encode())
