"""Keys, region and endpoint for S3, from where Amazon's own tools read them."""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from typing import Any, Final

from modeld.download.urls import user_and_password

_READ: Final = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "region", "endpoint_url")
_GIVEN_BY_CLOUD: Final = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_METADATA_ENDPOINT",
)


class AwsAccount:
    """Reads everything anew each time: other programs write the profiles."""

    def __init__(self, environ: Mapping[str, str], *, lends: bool = True, public: bool = False) -> None:
        """Without `lends`, only the keys of a reference count."""
        self._environ = dict(environ)
        self._lends = lends
        self._public = public

    @classmethod
    def public(cls, endpoint: str) -> AwsAccount:
        """For an endpoint that gets no keys: requests are not signed, even if keys are configured."""
        nowhere = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
        return cls({"AWS_ENDPOINT_URL": endpoint, **nowhere}, public=True)

    @property
    def region(self) -> str:
        environ = self._environ
        region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or self._profile().get("region")
        return region or "us-east-1"

    @property
    def endpoint(self) -> str | None:
        environ = self._environ
        endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
        return endpoint or self._profile().get("endpoint_url") or None

    def keys(self, userinfo: str | None) -> dict[str, Any]:
        """Arguments for obstore: the keys of the reference, the environment, the profile or the cloud, or no keys."""
        if self._public:
            return {"skip_signature": True}
        given = user_and_password(userinfo)
        if given is not None:
            return {"access_key_id": given[0], "secret_access_key": given[1]}
        if not self._lends:
            return {"skip_signature": True}
        upper = {name.lower(): value for name, value in self._environ.items() if name.startswith("AWS_")}
        for known in (upper, self._profile()):
            if known.get("aws_access_key_id"):
                names = ("access_key_id", "secret_access_key", "session_token")
                return {name: known[f"aws_{name}"] for name in names if known.get(f"aws_{name}")}
        if any(self._environ.get(name) for name in _GIVEN_BY_CLOUD) or _is_amazon():
            return {}
        # Asking for a metadata service takes many seconds on a machine that has none.
        return {"skip_signature": True}

    def _profile(self) -> Mapping[str, str]:
        environ = self._environ
        home = environ.get("HOME") or os.path.expanduser("~")
        name = environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE") or "default"
        found: dict[str, str] = {}
        for variable, file, section in (
            ("AWS_CONFIG_FILE", "config", name if name == "default" else f"profile {name}"),
            ("AWS_SHARED_CREDENTIALS_FILE", "credentials", name),
        ):
            parser = configparser.RawConfigParser()
            try:
                parser.read(environ.get(variable) or os.path.join(home, ".aws", file), encoding="utf-8")
                found |= {key: value for key, value in parser.items(section) if key in _READ}
            except (configparser.Error, OSError, UnicodeDecodeError):
                continue
        return found


def _is_amazon() -> bool:
    try:
        with open("/sys/devices/virtual/dmi/id/sys_vendor", encoding="ascii") as file:
            return file.read().strip() == "Amazon EC2"
    except (OSError, UnicodeDecodeError):
        return False
