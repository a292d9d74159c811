"""Types of arguments that several verbs take: what people write, checked before anything is sent."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

from modelclient import given_files
from modelwire.errors import InvalidRequest
from modelwire.units import parse_duration, parse_rate, parse_size

Amount = TypeVar("Amount", int, float)


def number(least: int, most: int | None = None) -> Callable[[str], int]:
    """The type of an argument that counts something."""
    return _bounded(int, "a number", least, most)


def seconds(least: float, most: float) -> Callable[[str], float]:
    """The type of an argument that is a number of seconds, or a duration such as `15m`."""
    return _bounded(_seconds, "a number of seconds or a duration such as 1h,", least, most)


def size(text: str) -> int:
    """Bytes, as `20GB` or a number."""
    try:
        return int(parse_size(text))
    except ValueError as fault:
        raise argparse.ArgumentTypeError(str(fault)) from None


def rate(text: str) -> int | None:
    """Bytes a second, None for no limit."""
    try:
        return parse_rate(text) or None
    except ValueError as fault:
        raise argparse.ArgumentTypeError(str(fault)) from None


def content_of(path: str, what: str, most: int) -> str:
    """Of a file of a signer. Raises InvalidRequest, before anything is sent."""
    data = given_files.read(path, f"file of the {what}", most + 1)
    try:
        text = data.decode()
    except ValueError:
        raise InvalidRequest(
            f"the {what} in {path} cannot be read: it is not text", hint="Give the file as the signer publishes it."
        ) from None
    if len(data) > most:
        raise InvalidRequest(
            f"the {what} in {path} has more than {most} bytes, which a request has no room for",
            hint="Give the file of the signature, of a public key, or of the few roots that you trust.",
        )
    return text


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float(parse_duration(text))  # the wire takes no subclass


def _bounded(convert: Callable[[str], Amount], what: str, least: float, most: float | None) -> Callable[[str], Amount]:
    def read(text: str) -> Amount:
        try:
            found = convert(text)
            if found >= least and (most is None or found <= most):
                return found
        except ValueError:
            pass
        of = f"from {least:.15g} to {most:.15g}" if most is not None else f"of {least:.15g} or more"
        raise argparse.ArgumentTypeError(f"{text!r} is not {what} {of}")

    return read
