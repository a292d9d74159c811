"""Signatures that requests for new models bring.

A signature can have most of a megabyte, and the ledger keeps thousands of requests: it stays in memory for as long as
its job lives, so such a job does not go on after a restart.
"""

from __future__ import annotations

import hashlib
from typing import Final

from modeld.jobs.board import Board
from modeld.jobs.job import Job
from modelwire.errors import Interrupted, InvalidRequest
from modelwire.requests import ModelAdd, ModelPull
from modelwire.values import Added, Pulled

_KEPT: Final = ""
"""In the place of a signature, in the request that the ledger stores."""


class GivenSignatures:
    def __init__(self, board: Board) -> None:
        self._board = board
        self._by_key: dict[str, str] = {}

    @staticmethod
    def key(request: ModelAdd | ModelPull) -> list[str]:
        """What a signature adds to the key of a job: two requests with two signatures share none."""
        if request.signature is None:
            return []
        if not request.signature:
            raise InvalidRequest("$.signature: it is empty", hint="Give the content of the signer's file.")
        return ["signature", hashlib.sha256(request.signature.encode()).hexdigest()]

    def keep(self, key: str, request: ModelAdd | ModelPull) -> str | None:
        """Call it again when the job is admitted. Returns what the stored request has in its place."""
        if request.signature is None:
            return None
        live = {job.key for job in self._board.jobs}
        self._by_key = {known: text for known, text in self._by_key.items() if known in live}
        self._by_key[key] = request.signature
        return _KEPT

    def of(self, job: Job[ModelAdd, Added] | Job[ModelPull, Pulled]) -> bytes | None:
        """Of a job that runs."""
        if job.request.signature is None:
            return None
        if job.key not in self._by_key:
            raise Interrupted(
                f"the signature of job {job.id} is kept nowhere: it cannot go on after a restart of the daemon",
                hint="Give it again with the same request; the bytes that are here are kept.",
                retryable=False,
            )
        return self._by_key[job.key].encode()
