"""Files of which one request gives all that is missing in a row, and ways that are tried before a source's own."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from daemon.conftest import MakeRig
from modeld.download.routes.router import Route
from modeld.download.source import Description, FileInfo
from modeld.progress import Stopped
from rigs.download_rig import SIZE, Plain, Rig, content_of, leave, quick
from rigs.scripted_server import Asked, Reply, file_reply, serving
from rigs.scripted_server import Route as Answer
from rigs.watcher import Watcher

CONTENT = content_of()


def ranges(asked: list[Asked]) -> list[str]:
    return [each.headers["Range"] for each in asked if "Range" in each.headers]


def test_one_request_gives_all_segments(make_rig: MakeRig) -> None:
    rig = make_rig(quick(4))
    with serving(lambda asked: file_reply(asked, CONTENT)) as server:
        found = rig.fetch(rig.info(server.url, CONTENT, long_requests=2))
        assert ranges(server.asked) == [f"bytes=0-{SIZE - 1}"]
    assert found.served == {f"plain at {server.url}": SIZE}
    leave(found)


def test_what_is_missing_after_a_stop_is_asked_for_once(make_rig: MakeRig) -> None:
    rig = make_rig(quick(4))
    with serving(lambda asked: file_reply(asked, CONTENT)) as server:
        file = rig.info(server.url, CONTENT, long_requests=2)
        with pytest.raises(Stopped):
            rig.fetch(file, watcher=Watcher(stop_after=SIZE // 2))
        server.asked.clear()
        watcher = Watcher()
        leave(rig.fetch(file, watcher=watcher))
        (only,) = ranges(server.asked)
    start = int(only.removeprefix("bytes=").partition("-")[0])
    assert watcher.reused == start > 0
    assert only.endswith(f"-{SIZE - 1}")


def test_an_answer_that_breaks_off_is_asked_for_from_there(make_rig: MakeRig) -> None:
    rig = make_rig(quick(4))
    cut: list[bool] = []

    def answer(asked: Asked) -> Reply:
        whole = file_reply(asked, CONTENT)
        if cut:
            return whole
        cut.append(True)
        told = {**whole.headers, "Content-Length": str(SIZE), "Connection": "close"}
        return Reply(whole.status, told, whole.body[: SIZE // 2])

    with serving(answer) as server:
        leave(rig.fetch(rig.info(server.url, CONTENT, long_requests=1)))
        first, second = ranges(server.asked)
    assert first == f"bytes=0-{SIZE - 1}"
    assert second == f"bytes={SIZE // 2}-{SIZE - 1}"


def test_only_so_many_files_are_asked_for_at_once(make_rig: MakeRig) -> None:
    rig = make_rig(quick(4))
    lock, now, most = threading.Lock(), [0], [0]
    second = threading.Event()

    def answer(asked: Asked) -> Reply:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
            if now[0] > 1:
                second.set()
        second.wait(0.2)
        with lock:
            now[0] -= 1
        return file_reply(asked, CONTENT)

    with serving(answer) as server:
        file = rig.info(server.url, CONTENT, long_requests=1)
        files = [replace(file, path=f"{name}.gguf", digest=None, validator=None) for name in "abc"]
        threads = [threading.Thread(target=lambda each=each: leave(rig.fetch(each))) for each in files]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert most == [1]


class TwoWays(Plain):
    """Describes the file with another way to it."""

    def __init__(self, rig: Rig, better: FileInfo) -> None:
        super().__init__(rig.client, "own")
        self._better = better

    def describe(self, reference: FileInfo) -> Description:
        better = Plain(self._client, "better")
        return replace(super().describe(reference), preferred={reference.path: (better, self._better)})


def two_ways(make_rig: MakeRig, better: Answer) -> tuple[dict[str, int], list[str]]:
    rig = make_rig(quick())
    with serving(lambda asked: file_reply(asked, CONTENT)) as own, serving(better) as other:
        file = rig.info(own.url, CONTENT)
        source = TwoWays(rig, rig.info(other.url, CONTENT))
        described = rig.transfer.router.describe(Route(file, [source]), on_event=rig.events.append)
        (progress,) = Watcher().files([file.size])
        found = rig.transfer.fetch_file(described, file, progress=progress, on_event=rig.events.append)
        served = {name.partition(" ")[0]: size for name, size in found.served.items()}
        leave(found)
    return served, rig.kinds()


def test_the_preferred_way_is_taken(make_rig: MakeRig) -> None:
    assert two_ways(make_rig, lambda asked: file_reply(asked, CONTENT)) == ({"better": SIZE}, [])


def test_when_it_fails_the_source_itself_is_asked(make_rig: MakeRig) -> None:
    assert two_ways(make_rig, lambda asked: Reply(404)) == ({"own": SIZE}, ["source.failed"])


def test_a_preferred_way_with_other_bytes_is_condemned_alone(make_rig: MakeRig) -> None:
    served, kinds = two_ways(make_rig, lambda asked: file_reply(asked, CONTENT[::-1]))
    assert served == {"own": SIZE}
    assert kinds == ["source.condemned"]
