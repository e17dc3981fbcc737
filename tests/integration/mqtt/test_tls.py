"""TLS and mutual TLS with a real mosquitto, and what an operator reads when it does not work."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edged.messages import Outbound
from edged.mqtt.settings import TlsSettings
from tests.doubles.broker import Mosquitto
from tests.doubles.certificates import Authority
from tests.integration.mqtt.conftest import MakeLink, Subject


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), "a stranger")


def tls_broker(folder: Path, authority: Authority, certificate: tuple[Path, Path], *options: str) -> Mosquitto:
    files = (f"certfile {certificate[0]}", f"keyfile {certificate[1]}", f"cafile {authority.ca_file}")
    return Mosquitto(folder, *files, *options)


@pytest.fixture
def broker(tmp_path: Path, authority: Authority) -> Iterator[Mosquitto]:
    with tls_broker(tmp_path, authority, authority.issue("server")) as running:
        yield running


@pytest.fixture
def mutual_broker(tmp_path: Path, authority: Authority) -> Iterator[Mosquitto]:
    with tls_broker(tmp_path, authority, authority.issue("server"), "require_certificate true") as running:
        yield running


async def refusal(subject: Subject) -> tuple[str, str]:
    await subject.heard.until(lambda: subject.heard.downs, "the failure to be told")
    assert subject.heard.sessions == []
    return subject.heard.downs[0]


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_messages_go_both_ways_over_tls(
    broker: Mosquitto, authority: Authority, make_link: MakeLink, protocol: str
) -> None:
    subject = await make_link(
        broker.port, protocol=protocol, tls=TlsSettings(authority.ca_file), filters=("out/#",)
    ).up()
    subject.acknowledge_everything()
    large = b"x" * 300_000  # many TLS records
    subject.link.send([Outbound(b"out/1", b"small", 1), Outbound(b"out/1", large, 2)])
    await subject.heard.until(lambda: subject.payloads == [b"small", large], "both messages back")
    await subject.heard.until(lambda: subject.heard.acknowledged == [1, 2], "both confirmations")
    await subject.link.close()
    await subject.ended()


async def test_a_client_certificate_is_shown_and_read_again_at_each_connect(
    mutual_broker: Mosquitto, authority: Authority, stranger: Authority, tmp_path: Path, make_link: MakeLink
) -> None:
    certificate, key = tmp_path / "client.pem", tmp_path / "client.key"
    for source, target in zip(stranger.issue("gateway"), (certificate, key), strict=True):
        target.write_bytes(source.read_bytes())
    subject = make_link(mutual_broker.port, protocol="5", tls=TlsSettings(authority.ca_file, certificate, key))
    code, _ = await refusal(subject)
    assert code in {"tls", "closed"}  # with TLS 1.3 the refusal comes after the handshake, or with a reset
    for source, target in zip(authority.issue("gateway"), (certificate, key), strict=True):
        target.write_bytes(source.read_bytes())
    await subject.up()


async def test_without_the_certificate_that_the_broker_asks_for_there_is_no_connection(
    mutual_broker: Mosquitto, authority: Authority, make_link: MakeLink
) -> None:
    subject = make_link(mutual_broker.port, protocol="5", tls=TlsSettings(authority.ca_file))
    code, detail = await refusal(subject)
    assert code in {"tls", "closed"}
    if code == "tls":
        assert "cert_file" in detail


async def test_an_expired_certificate_is_named_with_its_cure(
    tmp_path: Path, authority: Authority, make_link: MakeLink
) -> None:
    with tls_broker(tmp_path, authority, authority.issue("expired", days=0)) as broker:
        subject = make_link(broker.port, tls=TlsSettings(authority.ca_file))
        code, detail = await refusal(subject)
    assert code == "tls"
    assert "certificate has expired" in detail
    assert "clock" in detail


async def test_a_certificate_for_another_name_is_refused_unless_that_name_is_expected(
    tmp_path: Path, authority: Authority, make_link: MakeLink
) -> None:
    with tls_broker(tmp_path, authority, authority.issue("named", names="DNS:broker.example")) as broker:
        tls = TlsSettings(authority.ca_file)
        code, detail = await refusal(make_link(broker.port, tls=tls, client_id="a"))
        assert code == "tls"
        assert "mismatch" in detail
        assert "a name that stands in the certificate" in detail
        await make_link(broker.port, tls=replace(tls, server_name="broker.example"), client_id="b").up()


async def test_a_broker_signed_by_a_stranger_is_refused(
    broker: Mosquitto, stranger: Authority, make_link: MakeLink
) -> None:
    code, detail = await refusal(make_link(broker.port, tls=TlsSettings(stranger.ca_file)))
    assert code == "tls"
    assert "ca_file" in detail


async def test_the_systems_store_is_used_when_no_authority_is_named(broker: Mosquitto, make_link: MakeLink) -> None:
    code, _ = await refusal(make_link(broker.port, tls=TlsSettings()))
    assert code == "tls"


async def test_a_port_that_does_not_speak_tls_is_named(
    stock_broker: Mosquitto, authority: Authority, make_link: MakeLink
) -> None:
    subject = make_link(stock_broker.port, tls=TlsSettings(authority.ca_file))
    code, detail = await refusal(subject)
    assert code in {"tls", "unreachable"}
    assert str(stock_broker.port) in detail


@pytest.mark.parametrize("broken", ["missing", "not a certificate", "key of another", "empty authority"])
async def test_files_that_cannot_be_used_are_named(
    broken: str, tmp_path: Path, authority: Authority, stranger: Authority, make_link: MakeLink
) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("" if broken == "empty authority" else "nonsense")
    certificate, _ = authority.issue("client")
    tls = {
        "missing": TlsSettings(tmp_path / "missing.pem"),
        "not a certificate": TlsSettings(authority.ca_file, nonsense, nonsense),
        "key of another": TlsSettings(authority.ca_file, certificate, stranger.issue("other")[1]),
        "empty authority": TlsSettings(nonsense),
    }[broken]
    culprit = {"missing": "missing.pem", "key of another": "client.pem"}.get(broken, "nonsense.pem")
    code, detail = await refusal(make_link(1, tls=tls))
    assert code == "credentials"
    assert culprit in detail
    assert "try:" in detail


async def test_a_killed_tls_broker_is_found_again(broker: Mosquitto, authority: Authority, make_link: MakeLink) -> None:
    subject = await make_link(broker.port, tls=TlsSettings(authority.ca_file)).up()
    await asyncio.to_thread(broker.kill)
    await subject.heard.until(lambda: subject.heard.downs, "the loss")
    await asyncio.to_thread(broker.start)
    await subject.up(2)
