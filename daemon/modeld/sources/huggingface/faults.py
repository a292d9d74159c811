"""The errors for the error codes of a hub."""

from __future__ import annotations

from modeld.download.http.answers import status_fault
from modeld.download.http.client import Answer
from modeld.sources.huggingface.reference import HubReference
from modelwire.errors import SourceNotFound, SourceUnauthorized, WireError


def hub_fault(answer: Answer, reference: HubReference, endpoint: str, *, signed_in: bool) -> WireError:
    code = (answer.headers.get("X-Error-Code") or "").strip()
    message = (answer.headers.get("X-Error-Message") or "").lower()
    repo, host = reference.repo, endpoint.partition("://")[2]
    details = {"source": answer.url.shown, "status": answer.status, "error_code": code or None}
    if code == "GatedRepo":
        if signed_in:
            return SourceUnauthorized(
                f"{repo} is gated: its owner has not let in the account of the token in use",
                hint=f"Ask for access on {endpoint}/{repo} and wait for it, or use the token of an account that has it."
                " A fine-grained token needs the right to read gated repositories.",
                details=details,
            )
        return SourceUnauthorized(
            f"{repo} is gated: its owner gives it only to accounts that accepted the terms, and no token is set",
            hint=f"Accept the terms on {endpoint}/{repo}, then set HF_TOKEN for the daemon (or `hf auth login`).",
            details=details,
        )
    if code == "RevisionNotFound":
        return SourceNotFound(
            f"the repository {repo} has no revision {reference.revision or 'main'}",
            hint=f"See its branches and tags on {endpoint}/{repo}/tree; write a commit in full.",
            details=details,
        )
    if code == "EntryNotFound":
        return SourceNotFound(
            f"the repository {repo} has no {reference.path or 'such file'} at {reference.revision or 'main'}",
            hint=f"See its files on {endpoint}/{repo}/tree/{reference.revision or 'main'}.",
            details=details,
        )
    if code == "DisabledRepo":
        return SourceUnauthorized(f"{host} has disabled the repository {repo}", details=details)
    if answer.status == 401 and signed_in and ("invalid" in message or "expired" in message or not code):
        return SourceUnauthorized(
            f"{host} does not accept the token in use",
            hint="Set a new HF_TOKEN, or unset it for public models: the token may have expired or been revoked.",
            details=details,
        )
    if code == "RepoNotFound" or (answer.status in (401, 404) and not code):
        if signed_in:
            return SourceNotFound(
                f"{host} has no repository {repo}, or the token in use has no right to it",
                hint="Check the spelling of organisation and repository; for a private one use a token with access.",
                details=details,
            )
        return SourceNotFound(
            f"{host} has no repository {repo}, or it is private and no token is set",
            hint="Check the spelling of organisation and repository; for a private one set HF_TOKEN for the daemon.",
            details=details,
        )
    return status_fault(answer.status, answer.headers, answer.url.shown)
