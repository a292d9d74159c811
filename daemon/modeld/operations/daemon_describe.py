"""daemon.describe: the requests, replies and values of this daemon, as JSON Schema."""

from __future__ import annotations

from modeld.operations.operation import Caller, QuickOperation
from modelwire import limits, schema
from modelwire.requests import DaemonDescribe
from modelwire.values import Description


class Describe(QuickOperation[DaemonDescribe, Description]):
    request, value = DaemonDescribe, Description

    def answer(self, _: Caller, __: DaemonDescribe, /) -> Description:
        return Description(
            protocol=limits.PROTOCOL_MAX, operations=schema.operations(), schema={"$defs": schema.definitions()}
        )
