"""The table [trust]: what is refused at the start, because it would require nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from modeld.__main__ import main
from modeld.app.trust import trust_rules
from modeld.config import ConfigError, dump, load
from modeld.config.trust import MOST_RULES, TrustRule, TrustSettings

RULE = """
[[trust.require]]
references = ["hf:org/*", "local:/srv/models/*"]
keys = ["/etc/k.pem"]
roots = ["/etc/r.pem"]
"""


def loaded(room: Path, text: str) -> TrustSettings:
    path = room / "config.toml"
    path.write_text(text)
    return load({"MODELD_CONFIG": str(path)}).settings.trust


def test_rules_are_read_and_printed_as_they_are_read(tmp_path: Path) -> None:
    settings = loaded(tmp_path, RULE + RULE.replace("org", "other"))
    assert settings.require[0] == TrustRule(
        references=("hf:org/*", "local:/srv/models/*"), keys=("/etc/k.pem",), roots=("/etc/r.pem",)
    )
    assert settings.require[1].references[0] == "hf:other/*"
    printed = dump(load({"MODELD_CONFIG": str(tmp_path / "config.toml")}).settings)
    assert "[trust]" in printed
    assert loaded(tmp_path, printed) == settings


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('references = []\nkeys = ["/k"]', "at least one pattern"),
        ('references = ["hf:org/*"]', "at least one file"),
        ('references = ["hf:org/*"]\nkeys = ["k.pem"]', "absolute"),
        ('references = ["hf:org/*"]\nroots = ["~/k.pem"]', "absolute"),
        ('references = ["/srv/models/*"]\nkeys = ["/k"]', "local:/"),
        ('references = ["local:models/*"]\nkeys = ["/k"]', "local:/"),
        ('references = ["huggingface.co/org/*"]\nkeys = ["/k"]', "hf:"),
        ('references = ["HF:org/*"]\nkeys = ["/k"]', "hf:"),
        ('references = ["hf:org/* "]\nkeys = ["/k"]', "no space"),
        ('references = ["hf:org/*"]\nkeys = ["/k"]\nroot = ["/r"]', "unknown field"),
        ('keys = ["/k"]', "references"),
    ],
)
def test_a_rule_that_would_require_nothing_is_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, f"[[trust.require]]\n{text}\n")
    assert "trust.require" in caught.value.message
    assert why in caught.value.message


def test_more_rules_than_can_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        TrustSettings(require=(TrustRule(references=("*",), keys=("/k",)),) * (MOST_RULES + 1))


@pytest.mark.parametrize(
    "pattern", ["https://huggingface.co/org/*", "https://hf.co/org/repo", "https://ollama.com/library/llama3"]
)
def test_a_page_of_a_site_whose_references_are_written_otherwise_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError) as caught:
        trust_rules(TrustSettings(require=(TrustRule(references=(pattern,), keys=("/k",)),)))
    assert pattern in caught.value.message


@pytest.mark.parametrize(
    ("pattern", "instead"),
    [
        ("http://127.0.0.1:80/*", "Leave out the port 80"),
        ("https://host:443/*", "https://host/*"),
        ("http://u@127.0.0.1/*", "https://127.0.0.1/*"),
        ("https://host/get?key=abc", "https://host/get"),
        ("https://host/*#part", "https://host/*"),
        ("https://host./*", "https://host/*"),
        ("https://host", "https://host/"),
        ("https://münchen.example/*", "https://xn--mnchen-3ya.example/*"),
        ("local:/srv/in//*", "without `//`"),
        ("local:/srv/x/../in/*", "and `..`"),
        ("local:/srv/in/./m.gguf", "without `//`, `.`"),
        ("local:/srv/in/", "without a `/` at its end"),
    ],
)
def test_a_spelling_that_no_reference_has_is_refused(pattern: str, instead: str) -> None:
    with pytest.raises(ConfigError) as caught:
        trust_rules(TrustSettings(require=(TrustRule(references=(pattern,), keys=("/k",)),)))
    assert pattern in caught.value.message
    assert instead in (caught.value.hint or "")


@pytest.mark.parametrize("rest", ["", "/*", "/sub/m.gguf"])
def test_a_link_that_no_reference_has_is_refused(tmp_path: Path, rest: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "ln").symlink_to(tmp_path / "in")
    with pytest.raises(ConfigError) as caught:
        trust_rules(TrustSettings(require=(TrustRule(references=(f"local:{tmp_path}/ln{rest}",), keys=("/k",)),)))
    assert f'write "local:{tmp_path}/in{rest}"' in (caught.value.hint or "")


def test_a_host_that_is_a_number_in_brackets_is_no_class_of_letters() -> None:
    rules = trust_rules(TrustSettings(require=(TrustRule(references=("http://[::1]:8080/*",), keys=("/k",)),)))
    assert rules.matching(["http://[::1]:8080/m.gguf"]) is not None
    assert rules.matching(["http://1:8080/m.gguf"]) is None


@pytest.mark.parametrize(
    "pattern",
    [
        "https://host/*",
        "https://HOST/*",
        "https://*.host/[ab]*/m?.gguf",
        "https://host/a b/*",
        "http://127.0.0.1:8000/*",
        "http://cache.lan/a/*",
        "local:/srv/*",
        "local:/*/m.gguf",
        "*",
        "https://*",
    ],
)
def test_addresses_of_all_other_hosts_are_taken(pattern: str) -> None:
    rules = trust_rules(TrustSettings(require=(TrustRule(references=(pattern,), keys=("/k",)),)))
    assert len(rules.faults()) == 1, "the key is not there"


def test_the_check_of_a_configuration_warns_of_signers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(RULE)
    for name in ("MODELS_HOME", "MODELD_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    assert main(["--check-config", "--config", str(path)]) == 0
    said = capsys.readouterr().err
    assert "/etc/k.pem verifies no signature" in said
    assert "/etc/r.pem verifies no signature" in said
    path.write_text(RULE.replace("hf:org/*", "https://huggingface.co/org/*"))
    assert main(["--check-config", "--config", str(path)]) == 2
    assert "canonical" in capsys.readouterr().err
