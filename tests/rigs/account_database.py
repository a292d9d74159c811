"""Stands where the daemon asks the system for users and groups: counts the questions, and answers when it is let."""

from __future__ import annotations

import threading

import pytest

from modeld.platform import accounts

OWN = 900_001
STRANGER = 900_002
NOBODY = 65_534


class AccountDatabase:
    def __init__(self) -> None:
        self.users = {"daemon-user": OWN, "alice": 1000, "bob": 1001, "root": 0, "nobody": NOBODY}
        self.groups = {"models": 500, "staff": 501, "wheel": 502}
        self.members = {"alice": {1000, 500}, "bob": {1001, 500, 501}, "nobody": {NOBODY, 502}}
        self.subordinate = range(0)
        self.lender = 1000
        self.asked: list[int] = []
        self.by: list[threading.Thread] = []
        self.broken = False
        self._answers = threading.Event()
        self._answers.set()

    def plant(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(accounts, "account_of", self.account_of)
        monkeypatch.setattr(accounts, "user_id", lambda name: self._id(self.users, name))
        monkeypatch.setattr(accounts, "group_id", lambda name: self._id(self.groups, name))
        monkeypatch.setattr(accounts, "overflow_uid", lambda: NOBODY)
        monkeypatch.setattr(accounts, "lender_of", lambda uid: self.lender if uid in self.subordinate else None)

    def hold(self) -> None:
        """Questions from now on get no answer until `release`: a directory server that is slow."""
        self._answers.clear()

    def release(self) -> None:
        self._answers.set()

    def account_of(self, uid: int) -> accounts.Account:
        self.asked.append(uid)
        self.by.append(threading.current_thread())
        assert self._answers.wait(60), "the test never let the database answer"
        name = next((name for name, number in self.users.items() if number == uid), None)
        if self.broken or name is None:
            return accounts.UNKNOWN._replace(subordinate=uid in self.subordinate)
        return accounts.Account(name, frozenset(self.members.get(name, {uid})))

    @staticmethod
    def _id(numbers: dict[str, int], name: str) -> int:
        return int(name) if name.isdigit() else numbers[name]
