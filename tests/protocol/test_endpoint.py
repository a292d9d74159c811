"""Where the daemon listens: who wins, what is trimmed, what is ignored, which directory is refused."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest

from modelwire import endpoint

UID = 1000


def path(environ: dict[str, str], configured: str | None = None, *, run_user_exists: bool = False) -> str:
    return endpoint.socket_path(environ, configured, UID, run_user_exists=run_user_exists)


def test_the_first_of_the_places_wins() -> None:
    everything = {"MODELD_SOCKET": "/a/own.sock", "XDG_RUNTIME_DIR": "/run/user/1000", "TMPDIR": "/var/tmp"}
    assert path(everything, "/b/file.sock", run_user_exists=True) == "/a/own.sock"
    del everything["MODELD_SOCKET"]
    assert path(everything, "/b/file.sock", run_user_exists=True) == "/b/file.sock"
    assert path(everything, None, run_user_exists=True) == "/run/user/1000/modeld/modeld.sock"
    del everything["XDG_RUNTIME_DIR"]
    assert path(everything, None, run_user_exists=True) == "/run/user/1000/modeld/modeld.sock"
    assert path(everything) == "/var/tmp/modeld-1000/modeld.sock"
    assert path({}) == "/tmp/modeld-1000/modeld.sock"


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
def test_a_blank_value_counts_as_none(blank: str) -> None:
    environ = dict.fromkeys(("MODELD_SOCKET", "XDG_RUNTIME_DIR", "TMPDIR"), blank)
    assert path(environ, blank) == "/tmp/modeld-1000/modeld.sock"


def test_blanks_around_a_value_are_trimmed() -> None:
    assert path({"MODELD_SOCKET": " /a/own.sock\n"}) == "/a/own.sock"
    assert path({}, " /b/file.sock ") == "/b/file.sock"
    assert path({"XDG_RUNTIME_DIR": " /run/user/7 "}) == "/run/user/7/modeld/modeld.sock"
    assert path({"TMPDIR": " /var/tmp "}) == "/var/tmp/modeld-1000/modeld.sock"


def test_an_explicit_path_becomes_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    here = os.getcwd()
    assert path({"MODELD_SOCKET": "m.sock"}) == f"{here}/m.sock"
    assert path({}, "~/m.sock") == "/home/ada/m.sock"
    assert path({}, "/a/../b//m.sock") == "/b/m.sock"


@pytest.mark.parametrize("relative", ["run", "./run", "../run", "~/run"])
def test_a_relative_base_directory_is_ignored(relative: str) -> None:
    """Else daemon and client would find another endpoint from each working directory."""
    assert path({"XDG_RUNTIME_DIR": relative}) == "/tmp/modeld-1000/modeld.sock"
    assert path({"XDG_RUNTIME_DIR": relative}, run_user_exists=True) == "/run/user/1000/modeld/modeld.sock"
    assert path({"TMPDIR": relative}) == "/tmp/modeld-1000/modeld.sock"
    assert endpoint.config_paths({"XDG_CONFIG_HOME": relative, "HOME": "/home/ada"})[0].startswith("/home/ada/")


def test_two_users_never_share_the_endpoint_of_last_resort() -> None:
    one = endpoint.socket_path({}, None, 1000, run_user_exists=False)
    other = endpoint.socket_path({}, None, 1001, run_user_exists=False)
    assert one != other


def test_the_endpoint_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELD_SOCKET", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/somewhere")
    assert endpoint.here() == "/run/somewhere/modeld/modeld.sock"
    assert endpoint.here("/b/file.sock") == "/b/file.sock"
    monkeypatch.setenv("MODELD_SOCKET", "/a/own.sock")
    assert endpoint.here("/b/file.sock") == "/a/own.sock"


def test_the_configuration_that_counts_first_stands_first() -> None:
    system = "/etc/modeld/config.toml"
    assert endpoint.config_paths({"MODELD_CONFIG": " /x.toml ", "HOME": "/home/ada"}) == ["/x.toml"]
    own = "/home/ada/.config/modeld/config.toml"
    assert endpoint.config_paths({"HOME": "/home/ada"}) == [own, system]
    both = {"HOME": "/home/ada", "XDG_CONFIG_HOME": "/cfg"}
    assert endpoint.config_paths(both) == ["/cfg/modeld/config.toml", system]
    assert endpoint.config_paths({}) == [system]


def directory(mode: int, uid: int = UID) -> os.stat_result:
    return os.stat_result((mode, 0, 0, 1, uid, 0, 0, 0, 0, 0))


def test_an_own_directory_is_safe() -> None:
    assert endpoint.unsafe_directory(directory(stat.S_IFDIR | 0o700), UID) is None
    assert endpoint.unsafe_directory(directory(stat.S_IFDIR | 0o755), UID) is None


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (directory(stat.S_IFLNK | 0o777), "it is a symbolic link"),
        (directory(stat.S_IFREG | 0o600), "it is not a directory"),
        (directory(stat.S_IFSOCK | 0o600), "it is not a directory"),
        (directory(stat.S_IFDIR | 0o700, uid=1001), "it belongs to uid 1001, not to uid 1000"),
        (directory(stat.S_IFDIR | 0o700, uid=0), "it belongs to uid 0, not to uid 1000"),
        (directory(stat.S_IFDIR | 0o770), "others can write to it (mode 0770)"),
        (directory(stat.S_IFDIR | 0o702), "others can write to it (mode 0702)"),
    ],
)
def test_an_unsafe_directory_is_explained(info: os.stat_result, reason: str) -> None:
    assert endpoint.unsafe_directory(info, UID) == reason


def test_who_is_trusted_may_own_the_directory() -> None:
    roots = directory(stat.S_IFDIR | 0o755, uid=0)
    assert endpoint.unsafe_directory(roots, UID, trusted_uids=(0,)) is None
    assert endpoint.unsafe_directory(directory(stat.S_IFLNK | 0o777, uid=0), UID, trusted_uids=(0,)) is not None


def test_a_sticky_directory_protects_what_is_in_it() -> None:
    assert (
        endpoint.unsafe_directory(directory(stat.S_IFDIR | stat.S_ISVTX | 0o777, uid=0), UID, trusted_uids=(0,)) is None
    )


def test_a_real_symbolic_link_is_seen(tmp_path: os.PathLike[str]) -> None:
    real, link = os.path.join(tmp_path, "real"), os.path.join(tmp_path, "link")
    os.mkdir(real, 0o700)
    os.symlink(real, link)
    assert endpoint.unsafe_directory(os.lstat(real), os.getuid()) is None
    assert endpoint.unsafe_directory(os.lstat(link), os.getuid()) == "it is a symbolic link"


def test_the_limit_is_the_kernels() -> None:
    limit = 103 if sys.platform == "darwin" else 107
    assert limit == endpoint.PATH_LIMIT


def test_importing_it_imports_nothing_slow() -> None:
    """The command's first door stands on it."""
    script = "import sys; import modelwire.endpoint; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, check=True,
                          env={"PYTHONPATH": os.path.dirname(os.path.dirname(endpoint.__file__))})  # fmt: skip
    assert "modelwire.endpoint" in done.stdout.split()
    assert not {"msgspec", "asyncio", "json", "re", "typing"} & set(done.stdout.split())
