"""How far a job is, on standard error: one line drawn over and over on a screen, plain lines now and then elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import time

from modelclient.ctl.output import complain, count, printable
from modelwire.replies import Accepted, Progress
from modelwire.units import rounded_duration, rounded_rate, rounded_size

LINE_SECONDS = 10.0
TENTH_SECONDS = 2.0
"""Where the output is kept, a line each ten seconds is news, and each tenth of the way if that takes two."""

WIDTH = 24
_WORDS = {
    "checking_local": "checking",
    "reserving": "reserving",
    "publish": "publishing",
    "load": "waiting for an engine to load it",
}


class ProgressLine:
    """Show what arrives, then `clear` before anything else is written."""

    def __init__(self, *, live: bool, wanted: bool = True, attached: bool = False) -> None:
        self._live = live and wanted
        self._wanted = wanted
        self._attached = attached
        self._drawn = False
        self._shown_at: float | None = None
        self._shown_tenth = 0
        self._shown_wait = ""

    def show(self, reply: Accepted | Progress, *, label: str = "") -> None:
        if not self._wanted:
            return
        text = (
            waiting(reply, attached=self._attached) if isinstance(reply, Accepted) else describe(reply, bar=self._live)
        )
        if not text:
            return
        text = printable(f"{label}  {text}" if label else text)
        if self._live:
            self._draw(text)
        elif self._is_news(reply, text):
            complain(f"modelctl: {text}")

    def clear(self) -> None:
        if self._drawn:
            self._drawn = False
            self._write("\r\x1b[K")

    def _draw(self, text: str) -> None:
        width = shutil.get_terminal_size((80, 24)).columns
        self._drawn = True
        self._write("\r" + text[: width - 1] + "\x1b[K")

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            self._live = self._wanted = False

    def _is_news(self, reply: Accepted | Progress, text: str) -> bool:
        if isinstance(reply, Accepted):
            news = text != self._shown_wait
            self._shown_wait = text
            return news
        now = time.monotonic()
        if self._shown_at is None:
            self._shown_at = now  # what is over in a moment needs no lines at all
        tenth = int((share_of(reply) or 0.0) * 10)
        if now < self._shown_at + (TENTH_SECONDS if tenth > self._shown_tenth else LINE_SECONDS):
            return False
        self._shown_at, self._shown_tenth = now, tenth
        return True


def share_of(now: Progress) -> float | None:
    return min(now.bytes_done / now.bytes_total, 1.0) if now.bytes_total else None


def waiting(accepted: Accepted, *, attached: bool = False) -> str:
    """The job's place in the queue. A client that attached asked for that very job, and it may have ended already."""
    shared = " (shared with a job that was there already)" if accepted.joined and not attached else ""
    if accepted.position == 0:
        return f"job {accepted.job} runs{shared}" if shared else ""
    return f"job {accepted.job} waits, {count(accepted.position, 'job')} before it{shared}"


def describe(now: Progress, *, bar: bool) -> str:
    share = share_of(now)
    parts = [_WORDS.get(now.phase, now.phase)]
    if share is not None:
        filled = int(share * WIDTH)
        drawn = f"[{'#' * filled}{'.' * (WIDTH - filled)}] " if bar else ""
        parts.append(f"{drawn}{share * 100:3.0f} %")
        parts.append(f"{rounded_size(now.bytes_done)} of {rounded_size(now.bytes_total)}")
    elif now.bytes_done:
        parts.append(rounded_size(now.bytes_done))
    if now.files_total and now.files_total > 1:
        parts.append(f"file {min(now.files_done + 1, now.files_total)} of {now.files_total}")
    if now.rate_bps:
        parts.append(rounded_rate(now.rate_bps))
    if now.eta_s is not None and share is not None and share < 1:
        parts.append(f"{rounded_duration(now.eta_s)} left")
    if now.attempt > 1:
        parts.append(f"attempt {now.attempt}")
    if now.source:
        parts.append(f"from {printable(os.path.basename(now.source) or now.source)}")
    return "  ".join(parts)
