"""Objects in buckets of S3 and of servers with the same protocol.

obstore, of the extra `s3`, finds credentials, signs, and lists in a process of its own. The bytes come from signed
addresses over the HTTP client of all sources, so ranges, resumption and limits are the same.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote

from modeld.download.cancel_scope import Overdue
from modeld.download.http import headers
from modeld.download.http.client import HttpClient
from modeld.download.source import Body, Description, FileInfo, strong
from modeld.sources.credentials.aws import AwsAccount
from modeld.sources.kind import NetworkKind
from modeld.sources.reference import NotAReference, Reference, Secrets, Written
from modeld.sources.s3.listing import Listed, ListingFault, listed
from modeld.store import parts
from modelwire.errors import (
    InvalidRequest,
    SourceNotFound,
    SourceUnauthorized,
    SourceUnavailable,
    TimedOut,
    Unsupported,
    WireError,
)

if TYPE_CHECKING:
    from obstore.store import S3Store

SIGNED_FOR: Final = timedelta(minutes=15)
"""Each range gets a newly signed address; this is long enough for a connection that has to wait."""

_SECONDS: Final = 20
_MOVED: Final = (301, 302, 303, 307, 308)
MAX_STORES: Final = 32
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Reference(Reference):
    """One object, a set of GGUF shards by any of them, or all objects below a prefix (`path` ends with `/`, or is
    empty)."""

    bucket: str
    path: str

    @property
    def text(self) -> str:
        return f"s3://{self.bucket}/{self.path}"

    @property
    def folder(self) -> str | None:
        return self.path if self.path.endswith("/") or not self.path else None

    @property
    def name_hint(self) -> str:
        return self.path.rstrip("/") or self.bucket

    @property
    def objects(self) -> list[str]:
        """The keys, when it is not a prefix."""
        folder, slash, name = self.path.rpartition("/")
        return [f"{folder}{slash}{shard}" for shard in parts.gguf_shards(name) or [name]]

    @property
    def is_single(self) -> bool:
        return self.folder is None and len(self.objects) == 1

    def spellings(self, paths: Sequence[str]) -> tuple[str, ...]:
        top = self.folder if self.folder is not None else self._beside
        return (self.text, *(f"s3://{self.bucket}/{top}{path}" for path in paths))

    @property
    def signatures(self) -> tuple[S3Reference, ...]:
        """The objects below a prefix have it among them."""
        if self.folder is not None:
            return ()
        nearest = [f"{self.path}.sig"] if self.is_single else []
        return tuple(replace(self, path=path) for path in [*nearest, f"{self._beside}model.sig"])

    @property
    def is_whole(self) -> bool:
        return self.folder is not None

    @property
    def _beside(self) -> str:
        folder, slash, _name = self.path.rpartition("/")
        return folder + slash


def read(written: Written) -> S3Reference | None:
    if written.scheme != "s3":
        return None
    rest = written.rest
    if not rest.startswith("//"):
        raise NotAReference("s3: must be followed by two slashes and a bucket", rule="s3")
    if "?" in rest or "#" in rest:
        raise NotAReference("it has a query, and objects of a bucket have none", rule="s3")
    authority, _, path = rest[2:].partition("/")
    userinfo, _, bucket = authority.rpartition("@")
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        raise NotAReference("the text after s3:// is not the name of a bucket", rule="bucket")
    reason = parts.path_fault(path.removesuffix("/")) if path else None
    if reason is not None:
        raise NotAReference(f"its key cannot be the path of a file: {reason}", rule="path")
    return S3Reference(bucket=bucket, path=path, secrets=Secrets(userinfo or None))


class S3Source:
    """Uses the credentials of the reference, else those of `account`."""

    name = "s3"

    def __init__(self, http: HttpClient, account: AwsAccount) -> None:
        self._http = http
        self._account = account
        self._lock = threading.Lock()
        self._stores: dict[tuple[object, ...], S3Store] = {}

    def origin(self, reference: S3Reference) -> str:  # noqa: ARG002 - buckets are part of the path
        return self._http.parse(self._base()).origin

    def describe(self, reference: S3Reference) -> Description:
        origin = self.origin(reference)
        if reference.folder is None:
            files = [self._object(replace(reference, path=key), origin) for key in reference.objects]
        else:
            files = self._listed(reference, origin)
        reason = parts.paths_fault([file.path for file in files])
        if reason is not None:
            raise InvalidRequest(f"{reference.text} cannot be in the store: {reason}", hint="Name a single object.")
        return Description(
            source=reference.text, files=tuple(files), registry=origin.partition("://")[2], repo=reference.bucket
        )

    def open(self, file: FileInfo, start: int, end: int | None, validator: str | None) -> Body:
        userinfo, _, rest = file.locator.partition("@s3:")
        bucket, _, key = rest.partition("/")
        return self._http.open_range(self._signed("GET", bucket, key, userinfo or None), file, start, end, validator)

    # -- describing

    def _object(self, reference: S3Reference, origin: str) -> FileInfo:
        address = self._signed("HEAD", reference.bucket, reference.path, reference.secrets.userinfo)
        answer = self._http.request("HEAD", address, redirects=False, ok=(*_MOVED, 200, 400, 403, 404))
        if answer.status != 200:
            raise self._refused(reference, answer.status, answer.headers.get("x-amz-bucket-region"))
        path = reference.path.rpartition("/")[2]
        return FileInfo(
            path=path,
            locator=_locator(reference, reference.path),
            size=headers.content_length(answer.headers),
            digest=headers.digest_of(answer.headers),
            validator=strong(headers.validator_of(answer.headers)),
            origin=origin,
            address=self._address(reference.bucket, reference.path),
            role=parts.role_of(path),
        )

    def _listed(self, reference: S3Reference, origin: str) -> list[FileInfo]:
        settings = self._settings(reference.secrets.userinfo)
        self._store(reference.bucket, settings)  # refuses what cannot be asked
        self._check_no_redirect(reference)
        try:
            found = listed(
                reference.bucket,
                reference.path,
                settings,
                plain=_is_plain(settings),
                stall_seconds=_SECONDS,
                seconds=self._http.document_seconds,
                most=parts.MAX_ENTRIES,
            )
        except Overdue as over:
            raise TimedOut(
                f"the bucket {reference.bucket} was not listed within {over.seconds:g} s, the time that it has",
                hint="Name a longer prefix, or try again later.",
                details={"source": reference.text},
            ) from None
        except ListingFault as fault:
            raise self._fault(reference, fault) from None
        if len(found) > parts.MAX_ENTRIES:
            raise InvalidRequest(
                f"there are more than {parts.MAX_ENTRIES} objects below {reference.text}, too many for a model of at"
                f" most {parts.MAX_FILES} files",
                hint="Name a longer prefix.",
            )
        paths = [(each.path.removeprefix(reference.path), each) for each in found]
        files = [
            self._listed_file(reference, each, path, origin) for path, each in paths if path and not path.endswith("/")
        ]
        if not files:
            raise SourceNotFound(f"there is nothing below {reference.text}", hint="Check the bucket and the prefix.")
        return files

    def _listed_file(self, reference: S3Reference, found: Listed, path: str, origin: str) -> FileInfo:
        return FileInfo(
            path=path,
            locator=_locator(reference, found.path),
            size=found.size,
            validator=strong(headers.validator_of({"ETag": found.etag or ""})),
            origin=origin,
            address=self._address(reference.bucket, found.path),
            role=parts.role_of(path),
        )

    def _check_no_redirect(self, reference: S3Reference) -> None:
        """Refuses a bucket that is redirected: obstore would follow, and send the session's token along in a header.
        This request has no keys, because the place of a bucket does not depend on them."""
        address = f"{self._base()}/{reference.bucket}?list-type=2&max-keys=0"
        answer = self._http.request("GET", address, redirects=False, ok=(*_MOVED, 200, 400, 401, 403, 404, 405, 501))
        if answer.status in _MOVED:
            raise self._refused(reference, answer.status, answer.headers.get("x-amz-bucket-region"))

    # -- the bucket

    def _signed(self, method: Literal["GET", "HEAD"], bucket: str, key: str, userinfo: str | None) -> str:
        settings = self._settings(userinfo)
        store = self._store(bucket, settings)
        if settings.get("skip_signature"):
            return self._address(bucket, key)
        import obstore
        from obstore.exceptions import BaseError

        try:
            return obstore.sign(store, method, key, SIGNED_FOR)
        except BaseError as fault:
            raise SourceUnauthorized(
                f"no address could be signed for s3://{bucket}/{key} ({type(fault).__name__})",
                hint="Check the daemon's AWS credentials.",
            ) from None

    def _address(self, bucket: str, key: str) -> str:
        return f"{self._base()}/{bucket}/{quote(key)}"

    def _base(self) -> str:
        return (self._account.endpoint or f"https://s3.{self._account.region}.amazonaws.com").rstrip("/")

    def _settings(self, userinfo: str | None) -> dict[str, Any]:
        settings: dict[str, Any] = {"region": self._account.region, **self._account.keys(userinfo)}
        if self._account.endpoint is not None:
            self._http.parse(self._account.endpoint)  # refuses plain http where it is not allowed
            settings["endpoint"] = self._account.endpoint
        return settings

    def _store(self, bucket: str, settings: dict[str, Any]) -> S3Store:
        place = (bucket, *sorted(settings.items()))
        with self._lock:
            found = self._stores.get(place)
            if found is None:
                if len(self._stores) >= MAX_STORES:
                    self._stores.clear()
                found = self._stores[place] = self._new_store(bucket, settings)
            return found

    @staticmethod
    def _new_store(bucket: str, settings: dict[str, Any]) -> S3Store:
        try:
            from obstore.exceptions import BaseError
            from obstore.store import S3Store
        except ImportError:
            raise Unsupported(
                "s3:// needs the extra s3, which is not installed",
                hint="Install it with the daemon: pip install 'modeld[daemon,s3]'.",
                details={"extra": "s3"},
            ) from None
        try:
            return S3Store(
                bucket,
                **settings,
                client_options={
                    "allow_http": _is_plain(settings),
                    "timeout": timedelta(seconds=_SECONDS),
                    "connect_timeout": timedelta(seconds=_SECONDS),
                },
                retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=_SECONDS)},
            )
        except (BaseError, ValueError, TypeError) as fault:
            raise InvalidRequest(
                f"the bucket {bucket} cannot be used as it is configured ({type(fault).__name__})",
                hint="Check the AWS_… variables of the daemon's environment.",
            ) from None

    # -- errors

    def _fault(self, reference: S3Reference, fault: ListingFault) -> WireError:
        if fault.status in (301, 400, 401, 403, 404):
            return self._refused(reference, fault.status, None)
        return SourceUnavailable(
            f"the bucket {reference.bucket} cannot be listed ({fault.kind})",
            hint="Check AWS_REGION, AWS_ENDPOINT_URL and the network.",
            details={"source": reference.text},
        )

    def _refused(self, reference: S3Reference, status: int, region: str | None) -> WireError:
        details = {"source": reference.text, "status": status}
        if region and region != self._account.region:
            return SourceUnavailable(
                f"the bucket {reference.bucket} is in the region {region[:40]}, not in {self._account.region}",
                hint=f"Set AWS_REGION={region[:40]} for the daemon.",
                retryable=False,
                details=details,
            )
        if status == 404:
            return SourceNotFound(
                f"there is no {reference.text}", hint="Check the bucket and the key.", details=details
            )
        if status in (400, 401, 403):
            return SourceUnauthorized(
                f"access to {reference.text} is denied",
                hint="Check the access key, its rights (s3:GetObject, and s3:ListBucket for a prefix) and the clock."
                " Without s3:ListBucket, S3 also answers this for a missing object.",
                details=details,
            )
        return SourceUnavailable(
            f"the server answers {status} for the bucket {reference.bucket} and does not name its region",
            hint="Set AWS_REGION, or AWS_ENDPOINT_URL, for the daemon.",
            retryable=False,
            details=details,
        )


def _is_plain(settings: dict[str, Any]) -> bool:
    return str(settings.get("endpoint", "")).startswith("http://")


def _locator(reference: S3Reference, key: str) -> str:
    return f"{quote(reference.secrets.userinfo or '', safe=':%')}@s3:{reference.bucket}/{key}"


KIND: Final = NetworkKind(
    name="s3",
    reference=S3Reference,
    forms=("s3://bucket/key, s3://bucket/prefix/",),
    read=read,
    authorities=("s3",),
    source=lambda setup: S3Source(setup.http, AwsAccount(setup.environ, lends=setup.lends)),
    mirror=lambda setup, _match, url: S3Source(setup.http, AwsAccount.public(url)),
)
