"""Pulls of what a document describes: of registered names, and by the addresses that documents have."""

from __future__ import annotations

import msgspec

from modeld.operations.services import Services
from modeld.sources.stored import StoredReference
from modeld.store import Digest, ModelName
from modelwire.errors import DigestMismatch, InvalidRequest, PermissionDenied, SourceNotFound
from modelwire.knowledge.document import ModelDocument
from modelwire.requests import ModelPull


def of_registered(services: Services, request: ModelPull, uid: int) -> ModelPull:
    """A pull of a registered name fetches what its document says, and expects its digest. It is for the user who
    wrote the address: another one would lend paths, networks and tokens to whatever it leads to."""
    store, reference = services.store, services.pulls.sources.read(request.ref, request.directory)
    if not isinstance(reference, StoredReference) or request.name not in (None, request.ref):
        return request
    meant = (reference.name, reference.name.with_default_tag)
    if any(store.index.knows(each) for each in meant if each is not None):
        return request  # what is here comes before what is registered
    if (registration := store.registrations.find(reference.text)) is None:
        return request
    document = registration.document
    name, address = ModelName.parse(registration.name), document.download_url or ""
    if registration.owner_uid != uid:
        of = "a user who is not known" if registration.owner_uid is None else f"uid {registration.owner_uid}"
        raise PermissionDenied(
            f"'{name.text}' is registered by {of}, who alone pulls it by its name",
            hint=f"Look at its `download_url` with `modelctl show {name.text} --json`, and pull that by itself:"
            f" `modelctl pull ADDRESS --name {name.text}`.",
            details={"name": name.text, "owner": registration.owner_uid, "uid": uid},
        )
    expected = document.sha256 or request.sha256
    if request.sha256 is not None and not Digest.parse(request.sha256).matches(Digest.parse(expected or "")):
        raise DigestMismatch(
            f"'{name.text}' is registered with the digest sha256:{expected}, {request.sha256} was expected",
            hint="Check the digest, or pull by a reference that names the source of the model.",
            # No bytes were read: there is no actual digest.
            details={
                "name": name.text,
                "expected_sha256": Digest.parse(request.sha256).hex,
                "registered_sha256": expected,
            },
        )
    if not address and not expected:
        raise SourceNotFound(
            f"'{name.text}' is registered without a place to fetch it from, and without a digest",
            hint=f"Bring its bytes under that name: `modelctl add PATH --name {name.text}`.",
            details={"name": name.text},
        )
    offline = request.offline or not address
    return msgspec.structs.replace(
        request, ref=address or name.text, name=name.text, sha256=expected, directory=None, offline=offline
    )


def check_address(services: Services, document: ModelDocument, where: str) -> None:
    """The address is written into manifests, which everybody reads."""
    if not document.download_url:
        return
    reference = services.pulls.sources.read(document.download_url)
    if reference.secrets:
        raise InvalidRequest(
            f"{where}.download_url holds a password or a signed query, and the document is for everybody to read",
            hint="Leave them out; `modelctl pull --credentials-file` takes them.",
        )
    if isinstance(reference, StoredReference):
        raise InvalidRequest(
            f"{where}.download_url: '{reference.text}' is a name in the store, and no place to fetch bytes from",
            hint="Write an address such as https://host/file or hf:org/repo/file.",
        )
