"""The live jobs, by id, by work and by token. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from modeld.jobs.job import AnyJob

_REMEMBERED = 256
"""Finished jobs kept in memory: reading a job right after its end needs no disk."""


class JobIndex:
    def __init__(self) -> None:
        self._live: dict[str, AnyJob] = {}
        self._by_key: dict[str, AnyJob] = {}
        self._by_token: dict[tuple[int, str], AnyJob] = {}
        self._joined: dict[str, list[tuple[int, str]]] = {}
        """By job: the tokens of the requests that joined it."""
        self._finished: dict[str, AnyJob] = {}

    def __iter__(self) -> Iterator[AnyJob]:
        return iter(list(self._live.values()))

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, job: AnyJob) -> bool:
        return job.id in self._live

    def live(self, job_id: str) -> AnyJob | None:
        return self._live.get(job_id)

    def get(self, job_id: str) -> AnyJob | None:
        return self._live.get(job_id) or self._finished.get(job_id)

    def same_work(self, key: str, peer: int, token: str | None) -> AnyJob | None:
        """The live job that has this token, or else does this work."""
        by_token = self._by_token.get((peer, token)) if token else None
        return by_token or self._by_key.get(key)

    def enter(self, job: AnyJob) -> None:
        self._live[job.id] = job
        self._by_key.setdefault(job.key, job)
        if job.token:
            self._by_token[job.peer, job.token] = job

    def join(self, job: AnyJob, peer: int, token: str) -> None:
        """The token stands for this job too, as long as the job lives."""
        if job.id in self._live and (peer, token) not in self._by_token:
            self._by_token[peer, token] = job
            self._joined.setdefault(job.id, []).append((peer, token))

    def close_to_joining(self, job: AnyJob) -> None:
        """From now on a request for the same work gets a new job. The tokens of this one still lead to it."""
        if self._by_key.get(job.key) is job:
            del self._by_key[job.key]

    def leave(self, job: AnyJob, *, remember: bool) -> None:
        self._live.pop(job.id, None)
        self.close_to_joining(job)
        if job.token and self._by_token.get((job.peer, job.token)) is job:
            del self._by_token[job.peer, job.token]
        for joined in self._joined.pop(job.id, ()):
            del self._by_token[joined]
        if remember:
            self._finished[job.id] = job
            while len(self._finished) > _REMEMBERED:
                del self._finished[next(iter(self._finished))]
