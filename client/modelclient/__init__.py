"""The client library of modeld: `connect()` for anyio programs, `Client` for blocking ones, one wire beneath both.

    async with modelclient.connect() as client:
        print((await client.resolve("llama:8b")).path)

    with modelclient.Client() as client:
        print(client.resolve("llama:8b").path)

Names are loaded when they are first used: `modelctl path` lives below this package and starts within milliseconds.
"""

TYPE_CHECKING = False  # not from typing: importing it takes as long as the whole fast path of the command
if TYPE_CHECKING:
    from modelclient.async_client import AsyncClient as AsyncClient
    from modelclient.async_client import connect as connect
    from modelclient.async_exchange import AsyncExchange as AsyncExchange
    from modelclient.async_exchange import AsyncWork as AsyncWork
    from modelclient.autostart import StartFailed as StartFailed
    from modelclient.client import Client as Client
    from modelclient.dialing import WrongStore as WrongStore
    from modelclient.exchange import Exchange as Exchange
    from modelclient.exchange import Work as Work
    from modelwire import errors as errors
    from modelwire import replies as replies
    from modelwire import values as values
    from modelwire.errors import *  # noqa: F403 - one class for each code, in one table
    from modelwire.version import __version__ as __version__

_HOMES = {
    "AsyncClient": "modelclient.async_client",
    "AsyncExchange": "modelclient.async_exchange",
    "AsyncWork": "modelclient.async_exchange",
    "Client": "modelclient.client",
    "Exchange": "modelclient.exchange",
    "StartFailed": "modelclient.autostart",
    "Work": "modelclient.exchange",
    "WrongStore": "modelclient.dialing",
    "__version__": "modelwire.version",
    "connect": "modelclient.async_client",
}
_MODULES = ("errors", "replies", "values")


def __getattr__(name: str) -> object:
    if name in _MODULES or name in _HOMES:
        from importlib import import_module

        return import_module(f"modelwire.{name}") if name in _MODULES else getattr(import_module(_HOMES[name]), name)
    if name[:1].isupper():
        from modelwire import errors

        found = getattr(errors, name, None)
        if isinstance(found, type) and issubclass(found, errors.ModeldError):
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    from modelwire.errors import BY_CODE

    mine = ["ConnectionLost", "LocalError", "ModeldError", "NoDaemon", "RemoteError", "WireError", *_HOMES, *_MODULES]
    return sorted(mine + [cls.__name__ for cls in BY_CODE.values()])
