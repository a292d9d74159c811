"""Settings from file, environment and flags, and the sentence for everything that is wrong with them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeld.config import (
    AccessSettings,
    ActivitySettings,
    ConfigError,
    DaemonSettings,
    LimitSettings,
    LogSettings,
    Mirror,
    Settings,
    StoreSettings,
    TransferSettings,
    dump,
    load,
)
from modeld.config.fields import all_keys
from modeld.config.file import MAX_FILE_BYTES
from modelwire import limits
from modelwire.units import Duration, Size


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def refused(file: Path, content: str | bytes) -> ConfigError:
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError) as refusal:
        load({}, path=str(file))
    assert "\n" not in refusal.value.message
    assert refusal.value.exit_code == 2
    return refusal.value


# --- defaults and layers ---


def test_the_defaults_are_those_of_the_design(tmp_path: Path) -> None:
    loaded = load({"HOME": str(tmp_path), "MODELD_CONFIG": os.devnull})
    settings = loaded.settings
    assert settings == Settings()
    assert loaded.warnings == ()
    assert settings.store.min_free == 1 << 30
    assert settings.store.max_bytes is None
    assert settings.store.grace == 3600.0
    assert settings.store.lock_wait == 30.0
    assert settings.limits.connections_per_peer == limits.CONNECTIONS_PER_PEER == 64
    assert settings.limits.waiting_per_peer == 16
    assert settings.limits.waiting_total == 64
    assert 1 <= settings.limits.running_bytes <= 4
    assert settings.limits.write_stall == 60.0
    assert settings.limits.read_stall == 30.0
    assert settings.limits.watcher_queue == 256
    assert settings.daemon == DaemonSettings(
        idle_exit=Duration(900), drain_deadline=Duration(20), endpoint_check=Duration(5)
    )
    assert settings.jobs.keep == 30 * 86400.0
    assert settings.jobs.ageing == 30.0
    assert settings.activity == ActivitySettings(max_bytes=Size(16 << 20), generations=3)
    assert settings.log == LogSettings(level="info", format="auto")
    assert (settings.node.vram_mb, settings.node.ram_mb) == (0, 0)
    assert not settings.access.opens_to_others


@pytest.mark.parametrize(("cores", "jobs"), [(1, 1), (2, 2), (4, 4), (64, 4)])
def test_byte_jobs_follow_the_cores(monkeypatch: pytest.MonkeyPatch, cores: int, jobs: int) -> None:
    monkeypatch.setattr("modeld.config.settings.usable_cores", lambda: cores)
    assert LimitSettings().running_bytes == jobs


def test_environment_over_file_and_flags_over_environment(file: Path) -> None:
    file.write_text(
        'models_home = "/file"\n[log]\nlevel = "debug"\nformat = "json"\n[store]\nmin_free = "5GB"\nmax_bytes = "1TB"\n'
    )
    loaded = load(
        {
            "MODELD_CONFIG": str(file),
            "MODELD_LOG_LEVEL": " warning ",
            "MODELD_LOG_FORMAT": "journal",
            "MODELD_STORE_MIN_FREE": "",
            "MODELD_STORE_MAX_BYTES": "none",
            "MODELD_SOCKET": "/run/x.sock",
        },
        overrides={"log.format": "console", "log.level": None, "limits.running_bytes": "3", "store.keep_cache": True},
    )
    assert loaded.path == str(file)
    settings = loaded.settings
    assert settings.models_home == "/file"
    assert settings.socket == "/run/x.sock"
    assert settings.log == LogSettings(level="warning", format="console")
    assert settings.store == StoreSettings(min_free=Size(5 * 10**9), max_bytes=None, keep_cache=True)
    assert settings.limits.running_bytes == 3


def test_every_setting_has_a_variable_and_a_sentence() -> None:
    variables = [key.variable for key in all_keys()]
    assert len(set(variables)) == len(variables)
    assert {"MODELD_SOCKET", "MODELD_STORE_MIN_FREE", "MODELD_LIMITS_READ_STALL"} <= set(variables)
    assert [key.path for key in all_keys() if not key.description] == []


def test_a_table_from_the_environment() -> None:
    loaded = load({"MODELD_CONFIG": os.devnull, "MODELD_ACCESS_USERS": "alice = write, bob=read,"})
    assert loaded.settings.access.users == {"alice": "write", "bob": "read"}
    assert loaded.settings.access.opens_to_others


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Settings().log = LogSettings()  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Settings().log.level = "debug"  # type: ignore[misc]
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"stor": {}}, Settings)


# --- which file ---


def test_the_first_file_that_exists_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = tmp_path / "system.toml"
    system.write_text('[log]\nlevel = "error"\n')
    monkeypatch.setattr("modelwire.endpoint.SYSTEM_CONFIG", str(system))
    environ = {"HOME": str(tmp_path)}
    assert load(environ).path == str(system)
    own = tmp_path / ".config" / "modeld" / "config.toml"
    own.parent.mkdir(parents=True)
    own.write_text('[log]\nlevel = "debug"\n')
    loaded = load(environ)
    assert (loaded.path, loaded.settings.log.level) == (str(own), "debug")
    assert load(environ, path=str(system)).path == str(system)
    system.unlink()
    own.unlink()
    assert load(environ).path is None


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.toml")
    for environ, path in (({"MODELD_CONFIG": missing}, None), ({}, missing)):
        with pytest.raises(ConfigError, match=r"missing\.toml: no such configuration file"):
            load(environ, path=path)


def test_a_file_that_is_there_must_be_readable(tmp_path: Path) -> None:
    own = tmp_path / ".config" / "modeld" / "config.toml"
    own.mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be read: it is not a regular file"):
        load({"HOME": str(tmp_path)})


def test_a_fifo_does_not_keep_the_daemon_from_starting(file: Path) -> None:
    os.mkfifo(file)
    assert stat.S_ISFIFO(os.lstat(file).st_mode)
    with pytest.raises(ConfigError, match="cannot be read: it is not a regular file"):
        load({}, path=str(file))


def test_a_file_beyond_all_measure_is_refused(file: Path) -> None:
    assert "larger than" in refused(file, b"#" * (MAX_FILE_BYTES + 1)).message


# --- what is wrong with it ---


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[store]\nmin_fre = "1GB"', "unknown key 'min_fre' in table [store]; did you mean 'min_free'?"),
        ('min_free = "1GB"', "unknown key 'min_free'; it belongs in table [store]"),
        ('[log]\nsocket = "x"', "unknown key 'socket' in table [log]; it belongs before the first table"),
        ("[limit]\n", "unknown table 'limit'; did you mean 'limits'?"),
        ("[zebra]\n", "unknown table 'zebra'"),
        ("zebra = 1\n", "unknown key 'zebra'"),
        ('"" = 1\n', "unknown key ''"),
        ("store = 1\n", "store: expected a table, got 1"),
        ("models_home = 1", "models_home: expected str | null, got 1"),
        ('[limits]\nrequests_per_peer = "64"', "limits.requests_per_peer: expected int, got '64'"),
        ("[limits]\nrequests_per_peer = 1.5", "limits.requests_per_peer: expected int, got 1.5"),
        ("[limits]\nrequests_per_peer = true", "limits.requests_per_peer: expected int, got True"),
        ("[limits]\nrequests_per_peer = 0", "limits.requests_per_peer: expected int >= 1, got 0"),
        ("[limits]\nrunning_bytes = 65", "limits.running_bytes: expected int <= 64, got 65"),
        ('[limits]\nread_stall = "soon"', "limits.read_stall: expected a duration such as '15m', '1h30m'"),
        ("[limits]\nread_stall = 0", "limits.read_stall: expected at least 0.1 s"),
        ("[limits]\nread_stall = nan", "limits.read_stall: expected a duration"),
        ("[limits]\nread_stall = inf", "limits.read_stall: expected a duration"),
        ("[limits]\nread_stall = [1]", "limits.read_stall: expected a duration such as '15m' or '1h30m', got list"),
        (
            '[access]\nnetworks = ["10.0.0.0/8", "10.1/99", "lan"]',
            "access.networks: '10.1/99' does not appear to be an IPv4 or IPv6 network; 'lan' does not appear",
        ),
        ("[activity]\nmax_bytes = 5", "activity.max_bytes: expected at least 1MiB"),
        ("[jobs]\nageing = 0", "jobs.ageing: expected at least 0.1 s"),
        ("[daemon]\nendpoint_check = 0", "daemon.endpoint_check: expected at least 0.1 s"),
        ('[store]\nmin_free = "5 apples"', "store.min_free: expected a size such as '5GB', '16MiB'"),
        ("[store]\nmin_free = 5.5", "store.min_free: expected a size such as '5GB' or '16MiB', got float"),
        ("[store]\nmin_free = -1", "store.min_free: expected a size from 0 to 2^63-1 bytes, got -1"),
        ('[store]\nmin_free = "none"', "store.min_free: expected a size"),
        ('[store]\nkeep_cache = "yes"', "store.keep_cache: expected bool, got 'yes'"),
        ('[log]\nlevel = "loud"', "log.level: expected one of debug, info, warning, error, got 'loud'"),
        ("[log]\nlevel = 1", "log.level: expected one of debug, info, warning, error, got 1"),
        ('[access]\nusers = {alice = "wrte"}', "access.users.alice: expected one of read, write, admin, got 'wrte'"),
        ('[access.groups]\nstaff = ["read"]', "access.groups.staff: expected one of read, write, admin"),
        ('[access]\nusers = "alice=read"', 'access.users: expected a table such as { alice = "read" }'),
        ("\na = ", "line 2, at the end: Invalid value"),
        ("a = ?", "line 1, column 5: Invalid value"),
        ("\n\n[store\n", "line 3, column 7: Expected ']' at the end of a table declaration"),
        ("a = [1,", "line 1, at the end: Invalid value"),
        (b"\n# \xff\n", "line 2: not UTF-8"),
        ("a = " + "[" * 5000, "nested too deeply"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(file: Path, content: str | bytes, said: str) -> None:
    error = refused(file, content)
    assert said in error.message
    assert error.message.startswith(f"{file}: ")


def test_a_value_out_of_range_names_the_place_that_it_comes_from(file: Path) -> None:
    file.write_text("[jobs]\nageing = 5\n")
    with pytest.raises(ConfigError, match=r"^MODELD_JOBS_AGEING: expected at least"):
        load({"MODELD_CONFIG": str(file), "MODELD_JOBS_AGEING": "0"})
    with pytest.raises(ConfigError, match=r"^jobs\.ageing: expected at least"):
        load({"MODELD_CONFIG": str(file), "MODELD_JOBS_AGEING": "7"}, overrides={"jobs.ageing": "0"})


def test_all_problems_of_a_file_are_listed(file: Path) -> None:
    error = refused(file, '[limits]\nwaiting_total = "x"\nread_stal = 4\n[log]\nlevel = 3\n')
    assert len(error.problems) == 3
    assert error.message == f"{error.problems[0]} (and 2 more)"
    assert error.hint


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("MODELD_LIMITS_RUNNING_BYTES", "many", "MODELD_LIMITS_RUNNING_BYTES: expected int, got 'many'"),
        ("MODELD_LIMITS_RUNNING_BYTES", "0", "MODELD_LIMITS_RUNNING_BYTES: expected int >= 1, got '0'"),
        ("MODELD_STORE_KEEP_CACHE", "yes", "MODELD_STORE_KEEP_CACHE: expected bool, got 'yes'"),
        ("MODELD_ACCESS_USERS", "alice", "MODELD_ACCESS_USERS: expected pairs such as 'alice=write,bob=read'"),
        ("MODELD_ACCESS_USERS", "alice=x", "MODELD_ACCESS_USERS.alice: expected one of read, write, admin"),
        ("MODELD_STORE_GRACE", "1x", "MODELD_STORE_GRACE: expected a duration"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str, said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        load({"MODELD_CONFIG": os.devnull, variable: value})
    assert said in refusal.value.message


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ({"log.levl": "info"}, "unknown setting 'log.levl'; did you mean 'level'?"),
        ({"zebra.level": "info"}, "unknown setting 'zebra.level'"),
        ({"log.level": "loud"}, "log.level: expected one of"),
        ({"limits.running_bytes": 1.5}, "limits.running_bytes: expected int"),
    ],
)
def test_a_wrong_flag_is_named(override: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        load({"MODELD_CONFIG": os.devnull}, overrides=override)
    assert said in refusal.value.message


def test_a_slip_in_a_variable_is_a_warning_others_are_not_ours() -> None:
    loaded = load(
        {"MODELD_CONFIG": os.devnull, "MODELD_LOG_LEVL": "x", "MODELD_READY_FD": "3", "MODELD_TOKEN": "x", "MODEL": "x"}
    )
    assert loaded.warnings == ("MODELD_LOG_LEVL is not a setting and was ignored; did you mean MODELD_LOG_LEVEL?",)


# --- printing ---

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
rights = st.dictionaries(names, st.sampled_from(["read", "write", "admin"]), max_size=4)
durations = st.floats(0.1, 36_500 * 86_400.0).map(Duration)
sizes = st.integers(1 << 20, 2**63 - 1).map(Size)
everything = st.builds(
    Settings,
    models_home=st.none() | names,
    socket=st.none() | names,
    store=st.builds(
        StoreSettings, group=st.none() | names, max_bytes=st.none() | sizes, grace=durations, lock_wait=durations
    ),
    limits=st.builds(LimitSettings, running_bytes=st.integers(1, 64), write_stall=durations, read_stall=durations),
    access=st.builds(AccessSettings, users=rights, groups=rights),
    daemon=st.builds(DaemonSettings, idle_exit=durations, endpoint_check=durations),
    activity=st.builds(ActivitySettings, max_bytes=sizes),
    log=st.builds(LogSettings, level=st.sampled_from(["debug", "error"])),
)


@given(everything)
def test_what_is_printed_reads_back(tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> None:
    file = tmp_path_factory.getbasetemp() / f"printed-{os.getpid()}.toml"
    file.write_text(dump(settings), encoding="utf-8", newline="")
    assert load({}, path=str(file)).settings == settings


def test_the_defaults_are_printed_with_a_word_on_each_key() -> None:
    text = dump(Settings())
    assert text.endswith("\n")
    tables = tomllib.loads(text)
    assert tables["store"]["min_free"] == "1GiB"
    assert tables["daemon"]["idle_exit"] == "15m"
    assert "max_bytes" not in tables["store"]
    for key in all_keys():
        assert f"# {key.description}\n" in text
        assert f"\n{key.name} = " in text or f"# {key.name} is not set\n" in text


def test_importing_the_configuration_is_cheap() -> None:
    code = "import modeld.config, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"structlog", "asyncio", "anyio", "logging", "tomllib", "difflib"} & set(loaded)


# --- transfers ---


def test_transfers_have_the_numbers_of_the_design_and_may_have_others(file: Path) -> None:
    assert Settings().transfer == TransferSettings(
        offline=False,
        max_rate=None,
        connections_per_file=16,
        connections_per_host=24,
        files_at_once=3,
        plain_hosts=(),
    )
    file.write_text(
        '[transfer]\noffline = true\nmax_rate = "20MB"\nplain_hosts = ["cache.lan"]\n'
        '[[mirror]]\nmatch = "hf:"\nurl = "https://one.example"\n'
        '[[mirror]]\nmatch = "hf:org/"\nurl = "https://two.example"\n'
    )
    settings = load({"MODELD_CONFIG": str(file)}).settings
    assert settings.transfer.max_rate == 20_000_000
    assert settings.transfer.plain_hosts == ("cache.lan",)
    assert settings.mirror == (
        Mirror(match="hf:", url="https://one.example"),
        Mirror(match="hf:org/", url="https://two.example"),
    )
    file.write_text(dump(settings), encoding="utf-8")
    assert load({"MODELD_CONFIG": str(file)}).settings == settings


def test_a_rate_may_name_its_second(file: Path) -> None:
    file.write_text('[transfer]\nmax_rate = "20MB/s"\n')
    assert load({"MODELD_CONFIG": str(file)}).settings.transfer.max_rate == 20_000_000


@pytest.mark.parametrize("written", ["0", '"none"', '"0MB"'])
def test_no_rate_is_no_limit(file: Path, written: str) -> None:
    file.write_text(f"[transfer]\nmax_rate = {written}\n")
    assert load({"MODELD_CONFIG": str(file)}).settings.transfer.max_rate is None


def test_lists_can_be_written_in_the_environment() -> None:
    settings = load(
        {
            "MODELD_CONFIG": os.devnull,
            "MODELD_TRANSFER_PLAIN_HOSTS": "a.lan, b.lan,",
            "MODELD_MIRROR": "hf:=https://a.example, oci:=https://b.example",
        }
    ).settings
    assert settings.transfer.plain_hosts == ("a.lan", "b.lan")
    assert [mirror.match for mirror in settings.mirror] == ["hf:", "oci:"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[transfer]\nmax_rate = 3\n", "max_rate: expected at least 1KB"),
        ("[transfer]\nconnections_per_file = 0\n", "connections_per_file"),
        ('[transfer]\nplain_hosts = "a"\n', "plain_hosts: expected array"),
        ('[[mirror]]\nmatch = "gopher:"\nurl = "https://b"\n', "match: expected a reference's beginning"),
        ('[[mirror]]\nmatch = "https://a/"\nurl = "https://b"\n', "expected two addresses that end with /"),
        ('[[mirror]]\nmatch = "https://a"\nurl = "https://b/"\n', "expected two addresses that end with /"),
        ('[[mirror]]\nmatch = "hf:"\nurl = "b.example"\n', "url: expected the address"),
        ('[[mirror]]\nmatch = "hf:"\n', "url"),
    ],
)
def test_what_is_wrong_with_a_transfer_is_said(file: Path, content: str, says: str) -> None:
    assert says in refused(file, content).message
