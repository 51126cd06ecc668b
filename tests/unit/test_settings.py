from __future__ import annotations

from pathlib import Path

import pytest
from eventbroker_server.domain.errors import BadSetting
from eventbroker_server.settings import Settings, known_numbers


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "broker.toml"


def load(config: Path | None = None, **environ: str) -> Settings:
    own = {f"EVENTBROKER_{name}": value for name, value in environ.items()}
    return Settings.load(own | ({"EVENTBROKER_CONFIG": str(config)} if config else {}))


def refusal(config: Path | None = None, **environ: str) -> BadSetting:
    with pytest.raises(BadSetting) as raised:
        load(config, **environ)
    assert raised.value.setting in str(raised.value)
    return raised.value


def test_without_anything_the_defaults_hold() -> None:
    assert load() == Settings()


def test_the_environment_sets_text_numbers_and_fractions() -> None:
    settings = load(POSTGRES_URL="postgresql://db/x", PORT="0", LINGER="0.5")
    assert settings == Settings(postgres_url="postgresql://db/x", port=0, linger=0.5)


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("False", False), ("off", False)])
def test_a_switch_is_set_by_a_word(text: str, value: bool) -> None:
    assert load(CREATE_GROUPS=text).create_groups is value


def test_a_switch_is_set_by_toml(config: Path) -> None:
    config.write_text("create_groups = false\n")
    assert not load(config).create_groups


def test_other_variables_of_the_environment_do_not_matter() -> None:
    assert Settings.load({"PATH": "/bin", "PORT": "1", "EVENTBROKERPORT": "2"}) == Settings()


def test_a_toml_file_goes_before_the_defaults_and_the_environment_before_the_file(config: Path) -> None:
    config.write_text('host = "::1"\nport = 7\nsweep_interval = 1\n')
    assert load(config, PORT="8") == Settings(host="::1", port=8, sweep_interval=1.0)


def test_a_variable_that_ends_in_file_names_a_file_with_the_value(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql://me:secret@db/x\n")
    assert load(POSTGRES_URL_FILE=str(secret)).postgres_url == "postgresql://me:secret@db/x"


def test_a_missing_secret_file_is_named_by_its_variable(tmp_path: Path) -> None:
    bad = refusal(POSTGRES_URL_FILE=str(tmp_path / "none"))
    assert bad.setting == "EVENTBROKER_POSTGRES_URL_FILE"
    assert "cannot be read" in bad.rule


def test_an_unknown_name_in_the_file_is_named_with_the_file(config: Path) -> None:
    config.write_text("prot = 7\n")
    bad = refusal(config)
    assert bad.setting == "prot"
    assert str(config) in bad.rule


def test_an_unknown_variable_is_named() -> None:
    assert "PROT" in refusal(PROT="7").setting.upper()


@pytest.mark.parametrize("content", [b"port = ", b"port = \xff", b"port = 1\nport = 2"], ids=["cut", "bytes", "twice"])
def test_a_file_that_is_no_toml_is_refused(config: Path, content: bytes) -> None:
    config.write_bytes(content)
    assert refusal(config).setting == "config"


def test_a_missing_file_is_refused(config: Path) -> None:
    assert refusal(config).setting == "config"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "http"),
        ("port", "1.5"),
        ("port", "65536"),
        ("port", ""),
        ("sweep_interval", "2s"),
        ("sweep_interval", "nan"),
        ("redis_timeout", "inf"),
        ("postgres_pool_size", "0"),
        ("flush_events", "0"),
        ("max_publish_events", "0"),
        ("max_snapshot_bytes", "3145729"),
        ("ack_deadline", "0.5"),
        ("ack_deadline", "43201"),
        ("log_level", "LOUD"),
        ("create_groups", "maybe"),
    ],
)
def test_a_value_that_does_not_fit_names_its_setting(name: str, value: str, config: Path) -> None:
    assert refusal(None, **{name.upper(): value}).setting == name
    config.write_text(f'{name} = "{value}"\n')
    assert refusal(config).setting == name


@pytest.mark.parametrize("name", known_numbers(Settings))
def test_no_number_may_be_negative(name: str) -> None:
    assert refusal(None, **{name.upper(): "-2"}).setting == name
