"""Every problem of a configuration is told at once, with the key, what stood there and the cure."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edged.errors import ConfigError, EdgedError
from edged.hub.configuration import database_url, examine, load, secret, split_listen
from edged.hub.problems import keys_of, tables
from edged.hub.settings import HubConfig
from tests.doubles.certificates import Authority
from tests.unit.hub.conftest import Write

REPOSITORY = Path(__file__).resolve().parents[3]
BROKER = '[broker]\nurl = "mqtt://127.0.0.1"\n'


def problems(write: Write, text: str) -> dict[str, str]:
    """Key → message and cure of everything that is wrong."""
    found = examine(write(text), {})
    assert (found.config is None) == bool(found.problems)
    return {problem.key: f"{problem.message} {problem.nearest} {problem.cure}" for problem in found.problems}


def test_the_shipped_example_is_right() -> None:
    found = examine(REPOSITORY / "configs" / "hub" / "hub.toml", {})
    assert (found.problems, found.notes) == ((), ())


def test_every_key_is_explained_and_every_bound_has_a_reason() -> None:
    for name, table in tables().items():
        for key in keys_of(table).values():
            assert key.doc.endswith("."), f"{name}.{key.name}"
            bounded = any(meta.ge is not None or meta.pattern is not None for meta in key.type.__metadata__)
            assert bool(key.why) or not bounded, f"{name}.{key.name}"


def test_a_configuration_travels_to_a_worker_unchanged(write: Write) -> None:
    config = load(write(BROKER + 'username = "u"\n[limits]\ncommits = 2\n'), {})
    assert msgspec.json.decode(msgspec.json.encode(config), type=HubConfig) == config


def test_paths_are_relative_to_the_file_that_says_them(write: Write, tmp_path: Path) -> None:
    config = load(write(BROKER + '[hub]\nstate_dir = "state"\n'), {})
    assert config.hub.state_dir == str(tmp_path / "state")
    assert config.gateways.keys_dir == str(tmp_path / "state" / "keys")
    assert config.database.url == f"sqlite:///{tmp_path}/hub.db"
    other = load(write('[database]\nurl = "sqlite:////data/hub.db"\n[gateways]\nkeys_dir = "/keys"\n'), {})
    assert (other.database.url, other.gateways.keys_dir) == ("sqlite:////data/hub.db", "/keys")


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        ("[hub]\nworker = 2", "hub.worker", "use workers"),
        ("[hub]\nworkers = 0", "hub.workers", "is not allowed"),
        ('[hub]\nworkers = "2"', "hub.workers", "is not allowed"),
        ("[hub]\nshared = true", "hub.shared", "belongs to broker.shared"),
        ("[hub]\nxyzzy = 1", "hub.xyzzy", "remove it"),
        ("[brokers]\n", "brokers", "use broker"),
        ('hub = 3\n[database]\nurl = "sqlite:///x"', "hub", "has the wrong type"),
        ('[hub]\nsites = ["a b"]', "hub.sites", "is not allowed"),
        ('[hub]\nmetrics_listen = "0.0.0.0:9"', "hub.metrics_listen", "not a loopback"),
        ('[hub]\nmetrics_listen = "x"', "hub.metrics_listen", "not an address"),
        ("[broker]\n", "broker.url", "is missing"),
        ('[broker]\nurl = ""', "broker.url", "is not allowed"),
        ('[broker]\nurl = "http://x"', "broker.url", "not the URL of a broker"),
        ('[broker]\nurl = "mqtt://u:p@x"', "broker.url", "use username and password_file"),
        ('[broker]\nurl = "mqtt://[x"', "broker.url", "not the URL of a broker"),
        ('[broker]\nurl = "mqtt://x:99999"', "broker.url", "not the URL of a broker"),
        (BROKER + 'password = "x"', "broker.password", "secrets never stand"),
        (BROKER + 'password_file = "p"', "broker.password_file", "does not exist"),
        (BROKER + 'password_credential = "p"', "broker.username", "a password needs"),
        (BROKER + 'protocol = "4"', "broker.protocol", "is not allowed"),
        (BROKER + 'root = "a/#"', "broker.root", "is not allowed"),
        (BROKER + 'ca_file = "."', "broker.ca_file", "is a folder"),
        ('[database]\nurl = "mysql://x"', "database.url", "names no database"),
        ('[database]\nurl = "sqlite:///"', "database.url", "names no file"),
        ('[database]\nurl = "postgresql://u:p@h/d"', "database.url", "carries a password"),
        ('[database]\nurl = "postgresql://h:99999999/d"', "database.url", "is not a URL"),
        ("[database]\n", "database.url", "is missing"),
        ('[database]\nurl = "sqlite:///x"\nurl_file = "hub.toml"', "database.url", "stands beside url_file"),
        ('[database]\nurl = "sqlite:///x"\npassword_file = "hub.toml"', "database.password_file", "nothing to SQLite"),
        (
            '[database]\nurl = "postgresql://u@h/d"\npassword_file = "hub.toml"\npassword_credential = "c"',
            "database.password_file",
            "keep one",
        ),
        ('[http]\nlisten = "x"\ntokens_file = "hub.toml"', "http.listen", "not an address"),
        ('[http]\nlisten = "127.0.0.1:1"', "http.tokens_file", "is missing"),
        ('[http]\nlisten = "0.0.0.0:1"\ntokens_file = "t"', "http.cert_file", "in the clear"),
        ('[http]\nlisten = "127.0.0.1:1"\ncert_file = "hub.toml"', "http.key_file", "go together"),
        ('[http]\nlisten = "127.0.0.1:1"\nclient_ca_file = "hub.toml"', "http.cert_file", "need TLS"),
        ('[http]\nlisten = "127.0.0.1:1"\ntokens_file = "hub.toml"', "http.tokens_file", "line 1"),
        ('[gateways]\nallow = ["lyon"]', "gateways.allow[0]", "names no gateway"),
        ("[limits]\ncommits = 99", "limits.commits", "is not allowed"),
    ],
)
def test_a_mistake_is_named_with_its_key_and_its_cure(write: Write, text: str, key: str, said: str) -> None:
    found = problems(write, text)
    assert said in found[key]


def test_all_mistakes_are_told_at_once(write: Write) -> None:
    text = '[hub]\nworkers = 0\nstate = "x"\n[broker]\nurl = 5\n[limits]\ncommits = 0\n'
    assert set(problems(write, text)) == {"hub.workers", "hub.state", "broker.url", "limits.commits"}


def test_a_secret_is_never_repeated(write: Write) -> None:
    found = examine(write(BROKER + 'password = "hunter2"\n[database]\nurl = "postgresql://u:hunter2@h/d"\n'), {})
    assert "hunter2" not in "".join(problem.text("f") for problem in found.problems)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\xff", "not TOML"), (b"[hub", "not TOML"), (b"#" * 1_000_001, "too long"), (b"x = " + b"[" * 9999, "not TOML")],
)
def test_a_file_that_is_no_configuration_says_so(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "hub.toml"
    file.write_bytes(content)
    (problem,) = examine(file, {}).problems
    assert said in problem.message


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "none.toml", {})
    assert "does not exist" in caught.value.problems[0]
    (folder,) = examine(tmp_path, {}).problems
    assert "cannot be read" in folder.message


def test_notes_prevent_nothing(write: Write) -> None:
    found = examine(write("[hub]\nworkers = 2\n"), {})
    assert found.config is not None
    assert [note.key for note in found.notes] == ["", "hub.workers"]


def test_a_credential_is_checked_where_the_service_runs(write: Write, tmp_path: Path) -> None:
    file = write('[database]\nurl = "postgresql://u@h/d"\npassword_credential = "db"\n' + BROKER)
    assert [note.key for note in examine(file, {}).notes] == ["database.password_credential"]
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    (problem,) = examine(file, environ).problems
    assert "LoadCredential=db" in problem.cure
    (tmp_path / "db").write_text("s3cret\n")
    assert examine(file, environ).problems == ()


def test_certificates_are_tried(write: Write, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    cert, key = authority.issue("hub")
    _other, other_key = authority.issue("other")
    files = f'ca_file = "{authority.ca_file}"\ncert_file = "{cert}"\n'
    right = f'[broker]\nurl = "mqtts://h"\n{files}key_file = "{key}"\n'
    assert problems(write, right) == {}
    assert "loading" in problems(write, right.replace(str(key), str(other_key)))["broker.ca_file"]
    assert "without TLS" in problems(write, right.replace("mqtts:", "mqtt:"))["broker.url"]
    assert (
        "loading the CA file" in problems(write, f'[broker]\nurl = "mqtts://h"\nca_file = "{key}"\n')["broker.ca_file"]
    )
    listen = f'[http]\nlisten = "0.0.0.0:1"\ncert_file = "{cert}"\nkey_file = "{key}"\n'
    http = f'{listen}client_ca_file = "{authority.ca_file}"\n'
    assert problems(write, http) == {}
    assert "clients' CA" in problems(write, http.replace(str(authority.ca_file), str(key)))["http.cert_file"]


def test_an_encrypted_key_asks_nobody(write: Write, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    cert, _key = authority.issue("hub")
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n")
    text = f'[broker]\nurl = "mqtts://h"\ncert_file = "{cert}"\nkey_file = "{encrypted}"\n'
    assert "certificate and key" in problems(write, text)["broker.ca_file"]


def test_the_password_is_put_into_the_url(write: Write, tmp_path: Path) -> None:
    (tmp_path / "p").write_text("p@ss/w:rd\nsecond line")
    config = load(write('[database]\nurl = "postgresql://u@h:5432/d?sslmode=require"\npassword_file = "p"\n'), {})
    assert database_url(config) == "postgresql://u:p%40ss%2Fw%3Ard@h:5432/d?sslmode=require"
    (tmp_path / "u").write_text("postgresql://u:x@h/d\n")
    config = load(write('[database]\nurl_file = "u"\n'), {})
    assert database_url(config) == "postgresql://u:x@h/d"


def test_a_secret_that_cannot_be_read_is_an_error_of_the_world(tmp_path: Path) -> None:
    with pytest.raises(EdgedError, match="reading the secret"):
        secret(str(tmp_path / "none"), "", {})
    with pytest.raises(EdgedError, match="systemd passed none"):
        secret("", "name", {})
    (tmp_path / "name").write_text("x\n")
    assert secret("", "name", {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == "x"
    assert secret("", "", {}) == ""


def test_addresses_to_listen_on_are_split() -> None:
    assert split_listen("[::]:8443") == ("::", 8443)
    assert split_listen("127.0.0.1:0") == ("127.0.0.1", 0)
    for wrong in ("8443", "h:", "h:99999"):
        with pytest.raises(ValueError):
            split_listen(wrong)
