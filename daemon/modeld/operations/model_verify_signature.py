"""model.verify_signature: whether a trusted signer signed the files of a model.

Apart from model.verify, which takes many names and answers for bytes: this takes one name, a signature and who is
trusted, and answers who signed.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import partial

import msgspec

from modeld.jobs.job import Job
from modeld.operations.job_operation import JobOperation, Submission, requester_of
from modeld.operations.operation import Caller
from modeld.signatures.verification import TrustedKey, TrustedRoots
from modeld.store import Manner, ModelName
from modeld.store.maintain.signed import Signature
from modelwire.errors import InvalidRequest
from modelwire.requests import ModelVerifySignature
from modelwire.values import SignatureVerified

VerifyJob = Job[ModelVerifySignature, SignatureVerified]


class VerifySignature(JobOperation[ModelVerifySignature, SignatureVerified]):
    request, value = ModelVerifySignature, SignatureVerified

    def check(self, caller: Caller, request: ModelVerifySignature, /) -> Submission[ModelVerifySignature]:
        name = ModelName.parse(request.name).text
        if (request.key is None) == (request.roots is None):
            raise InvalidRequest(
                "$.key: the signer is known by a key, or by root certificates with `roots`", hint="Give one of the two."
            )
        parts = [request.signature, request.key, request.roots]
        key = self.key(name, *map(_digest, parts), caller.uid)
        return Submission(msgspec.structs.replace(request, name=name), key, name)

    def kept(self, request: ModelVerifySignature, /) -> ModelVerifySignature:
        return msgspec.structs.replace(request, signature="", key=None, roots=None)

    async def work(self, job: VerifyJob, /) -> SignatureVerified:
        given = job.request
        trusted = (
            TrustedRoots((given.roots or "").encode(), datetime.now(UTC))
            if given.key is None
            else TrustedKey(given.key.encode())
        )
        manner = Manner(
            order=job.order,
            requester=requester_of(job),
            on_failed=partial(self._services.model_failed, job=job.id),
        )
        return await self._services.store.signatures.verify(
            given.name, Signature(given.signature.encode(), trusted), manner=manner, progress=job.progress
        )


def _digest(text: str | None) -> str | None:
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()
