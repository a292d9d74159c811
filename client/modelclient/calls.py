"""One request, the type of the value that answers it, and the open files that go with it."""

from __future__ import annotations

from typing import Generic, TypeVar

from modelwire.requests import Request
from modelwire.values import Value

T = TypeVar("T", bound=Value)


class Call(Generic[T]):
    """`descriptors` ride with the request; `path` is of local files that the request is about, which the client hands
    over to a daemon that does not open the path."""

    __slots__ = ("descriptors", "path", "request", "value")

    def __init__(
        self, request: Request, value: type[T], *, descriptors: tuple[int, ...] = (), path: str | None = None
    ) -> None:
        self.request = request
        self.value = value
        self.descriptors = descriptors
        self.path = path
