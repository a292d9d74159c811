"""The program of the child: `python -m modeld.sources.s3.child`. It reads one order, writes one JSON list for each
object below the prefix, and ends with the word `end`, or with the name and the status of a fault.

obstore reads a page whole, however long it is, and asks for page after page while they are empty. Here that takes the
memory and the time of a process that may be killed.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import timedelta

from modeld.platform import children

MAX_MEMORY = 512 << 20
"""Of the data of this process. A page of a thousand objects takes less than a hundredth."""

_STATUS = re.compile(r"status code: (\d{3})")


def main() -> None:
    children.end_with_parent()
    children.make_expendable()
    children.limit_memory(MAX_MEMORY)
    order = json.loads(sys.stdin.readline())
    seconds = timedelta(seconds=order["seconds"])
    output = sys.stdout
    try:
        import obstore
        from obstore.store import S3Store

        store = S3Store(
            order["bucket"],
            **order["settings"],
            client_options={"allow_http": order["plain"], "timeout": seconds, "connect_timeout": seconds},
            retry_config={"max_retries": 2, "retry_timeout": seconds},
        )
        for page in obstore.list(store, prefix=order["prefix"] or None):
            for found in page:
                output.write(json.dumps([found["path"], found["size"], found["e_tag"]]) + "\n")
    except Exception as fault:  # noqa: BLE001 - the daemon says what it means
        status = _STATUS.search(str(fault))
        # The rest of its text may hold anything.
        output.write(json.dumps({"fault": type(fault).__name__, "status": int(status[1]) if status else None}) + "\n")
    else:
        output.write('"end"\n')
    output.flush()


if __name__ == "__main__":
    main()
