"""Models in registries: `oci://` of any registry, and `ollama:` of Ollama's.

A tag can move; the description records the digest of the manifest that it named. The manifest names everything else by
digest. This source checks the digests of manifests and configurations; a pull checks those of files.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from modeld.download.http.client import HttpClient
from modeld.download.source import Body, Description, FileInfo
from modeld.download.urls import allows_plain
from modeld.sources.credentials.docker_config import RegistryLogin, registry_login
from modeld.sources.kind import NetworkKind
from modeld.sources.registries import layers
from modeld.sources.registries.reference import (
    OLLAMA_SITE,
    REGISTRIES,
    ImageReference,
    OciReference,
    OllamaReference,
    read_oci,
    read_ollama,
)
from modeld.sources.registries.registry import Document, Registry
from modeld.store.digest import Digest
from modelwire.errors import DigestMismatch, SourceUnavailable, WireError

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
OLLAMA_LIST: Final = "application/vnd.ollama.manifest.list.v2+json"
ACCEPT: Final = ", ".join((OCI_MANIFEST, DOCKER_MANIFEST, OCI_INDEX, DOCKER_LIST, OLLAMA_LIST))
"""Without the list's type, Ollama's registry answers with a variant for its oldest clients."""

_LISTS: Final = frozenset({OCI_INDEX, DOCKER_LIST, OLLAMA_LIST})
_MANIFESTS: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
_MODEL_TYPES: Final = ("application/vnd.cncf.model.", "application/vnd.docker.ai.")
_RUNNERS: Final = ("llamacpp", "ollama", "ggml")
MAX_DEPTH: Final = 3
"""Of lists within lists."""


class ImageSource:
    """Any registry, or, with `base`, a mirror of all registries, which gets no passwords. Without `lends`, only the
    password of a reference is used."""

    def __init__(
        self,
        http: HttpClient,
        *,
        name: str = "oci",
        environ: Mapping[str, str] | None = None,
        plain_hosts: Collection[str] = (),
        base: str | None = None,
        lends: bool = True,
    ) -> None:
        self._http = http
        self._environ = os.environ if environ is None else environ
        self._plain_hosts = plain_hosts
        self._base = base
        self._lends = lends
        self.name = name if base is None else f"{name} {http.parse(base).origin}"
        self._lock = threading.Lock()
        self._known: dict[str, Registry] = {}

    def origin(self, reference: ImageReference) -> str:
        return self._registry(reference.host).origin

    def describe(self, reference: ImageReference) -> Description:
        registry = self._registry(reference.host)
        repo = _repo(reference)
        userinfo = None if self._base is not None else reference.secrets.userinfo
        top = registry.manifest(repo, reference.wanted, ACCEPT, userinfo)
        chosen = self._descend(registry, repo, top, reference, userinfo)
        found = layers.files_of(chosen.content, reference.text)
        return Description(
            source=reference.text,
            files=tuple(
                FileInfo(
                    path=layer.path,
                    locator=registry.locator(repo, layer.digest, userinfo),
                    size=layer.size,
                    digest=layer.digest,
                    origin=registry.origin,
                    address=registry.locator(repo, layer.digest),
                    role=layer.role,
                )
                for layer in found
            ),
            registry=reference.host,
            repo=reference.repo,
            revision=top.digest.text,
            license=_license(registry, repo, chosen, userinfo),
        )

    def open(self, file: FileInfo, start: int, end: int | None, validator: str | None) -> Body:
        host = self._http.parse(file.locator).netloc
        return self._registry(host).open(file, start, end, validator)

    def _registry(self, host: str) -> Registry:
        if self._base is not None:
            host, base = "", self._base
        else:
            host = REGISTRIES.get(host, host)
            base = f"{'http' if allows_plain(_without_port(host), self._plain_hosts) else 'https'}://{host}"
        with self._lock:
            found = self._known.get(host)
            if found is None:
                found = self._known[host] = Registry(self._http, base, self._login(host))
            return found

    def _login(self, host: str) -> Callable[[], RegistryLogin | None]:
        if self._base is not None or not self._lends:
            return lambda: None
        return lambda: registry_login(host, self._environ)

    def _descend(
        self, registry: Registry, repo: str, document: Document, reference: ImageReference, userinfo: str | None
    ) -> Document:
        for _ in range(MAX_DEPTH):
            if not _is_list(document):
                return document
            children = layers.descriptors(document.content, "manifests", reference.text)
            child = choose(children)
            if child is None:
                raise layers.no_variant(reference.text, map(_offer, children))
            digest = layers.digest_in(child, reference.text)
            # Ollama's lists may embed the children; they are fetched by digest, and so checked, all the same.
            document = registry.manifest(repo, digest.text, ACCEPT, userinfo)
        raise SourceUnavailable(
            f"{reference.text} has lists of variants nested deeper than {MAX_DEPTH}", retryable=False
        )


def choose(children: Collection[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The variant to take: GGUF for llama.cpp before others, models before containers; the first of equals."""
    ranked = sorted((rank, place) for place, child in enumerate(children) if (rank := _rank(child)) is not None)
    return list(children)[ranked[0][1]] if ranked else None


def _rank(child: Mapping[str, Any]) -> int | None:
    if not isinstance(child.get("digest"), str):
        return None
    media_type = str(child.get("mediaType") or OCI_MANIFEST)
    if media_type not in _MANIFESTS and media_type not in _LISTS:
        return None
    annotations = child.get("annotations")
    if isinstance(annotations, dict) and annotations.get("vnd.docker.reference.type"):
        return None  # an attestation of another child
    runner, form = str(child.get("runner") or ""), str(child.get("format") or "").lower()
    if runner or form:
        return (0 if form == "gguf" else 20 if form else 10) + (
            _RUNNERS.index(runner) if runner in _RUNNERS else len(_RUNNERS)
        )
    if str(child.get("artifactType") or "").startswith(_MODEL_TYPES):
        return 0
    platform = child.get("platform")
    system = platform.get("os") if isinstance(platform, dict) else None
    return 30 if system in (None, "", "unknown") else 40


def _is_list(document: Document) -> bool:
    return document.media_type in _LISTS or ("manifests" in document.content and "layers" not in document.content)


def _offer(child: Mapping[str, Any]) -> str:
    platform = child.get("platform")
    facts = [child.get("runner"), child.get("format"), child.get("artifactType")]
    if isinstance(platform, dict):
        facts += [platform.get("os"), platform.get("architecture")]
    return f"{child.get('digest')} ({' '.join(str(each) for each in facts if each) or 'not described'})"


def _repo(reference: ImageReference) -> str:
    if reference.host in ("docker.io", "index.docker.io") and "/" not in reference.repo:
        return f"library/{reference.repo}"
    return reference.repo


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1 : host.index("]")]
    return host.partition(":")[0]


def _license(registry: Registry, repo: str, chosen: Document, userinfo: str | None) -> str | None:
    """From the annotations, else from the configuration of a ModelPack. Optional: an unreadable one gives None."""
    annotations = chosen.content.get("annotations")
    annotated = annotations.get("org.opencontainers.image.licenses") if isinstance(annotations, dict) else None
    if isinstance(annotated, str) and annotated:
        return annotated
    config = chosen.content.get("config")
    if not isinstance(config, dict) or not str(config.get("mediaType") or "").startswith(_MODEL_TYPES):
        return None
    try:
        digest = Digest.parse(str(config.get("digest")))
        descriptor = registry.small_blob(repo, digest, userinfo).get("descriptor")
    except DigestMismatch:
        raise
    except WireError:
        return None
    listed = descriptor.get("licenses") if isinstance(descriptor, dict) else None
    named = [each for each in listed if isinstance(each, str)] if isinstance(listed, list) else []
    return " AND ".join(named) or None


OLLAMA: Final = NetworkKind(
    name="ollama",
    reference=OllamaReference,
    forms=("ollama:name[:tag], ollama:namespace/name[:tag]",),
    read=read_ollama,
    sites=(OLLAMA_SITE,),
    source=lambda setup: ImageSource(
        setup.http, name="ollama", environ=setup.environ, plain_hosts=setup.plain_hosts, lends=setup.lends
    ),
    mirror=lambda setup, _match, url: ImageSource(setup.http, name="ollama", plain_hosts=setup.plain_hosts, base=url),
)

OCI: Final = NetworkKind(
    name="oci",
    reference=OciReference,
    forms=("oci://host/repo[:tag], oci://host/repo@sha256:…",),
    read=read_oci,
    authorities=("oci",),
    source=lambda setup: ImageSource(
        setup.http, environ=setup.environ, plain_hosts=setup.plain_hosts, lends=setup.lends
    ),
    mirror=lambda setup, _match, url: ImageSource(setup.http, plain_hosts=setup.plain_hosts, base=url),
)
