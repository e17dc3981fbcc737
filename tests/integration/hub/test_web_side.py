"""Gateways bring batches over HTTP(S); the database is a double."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from edged.hub import web
from edged.hub.supervisor import open_listening
from edged.sync.envelope import decode_ack, decode_hello_ack
from edged.sync.protocol import Ack, HelloAck
from tests.doubles.broker import free_port
from tests.doubles.certificates import Authority
from tests.doubles.hub_rig import Rig, configured, hello_payload, payload, running_worker

TOKEN = "0123456789abcdef0123456789abcdef"
AS_GW = {"Authorization": f"Bearer {TOKEN}"}


class Site:
    """A served hub and a client of it."""

    def __init__(self, rig: Rig, client: aiohttp.ClientSession, base: str, port: int) -> None:
        self.rig = rig
        self.client = client
        self.base = base
        self.port = port

    async def batch(self, data: bytes | AsyncIterator[bytes], headers: dict[str, str] | None = None) -> Ack:
        body = io.BytesIO(data) if isinstance(data, bytes) else data  # the client warns of large plain bytes
        async with self.client.post(f"{self.base}/v1/sync/batch", data=body, headers=headers or AS_GW) as response:
            assert response.status == 200, await response.text()
            return decode_ack(await response.read())

    async def hello(self, data: bytes) -> HelloAck:
        async with self.client.post(f"{self.base}/v1/sync/hello", data=data, headers=AS_GW) as response:
            assert response.status == 200, await response.text()
            return decode_hello_ack(await response.read())

    async def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
        async with self.client.get(f"{self.base}{path}", headers=headers) as response:
            return response.status, await response.text()


@asynccontextmanager
async def served(
    folder: Path, http: str = 'tokens_file = "tokens"\n', more: str = "", *, context: ssl.SSLContext | None = None
) -> AsyncIterator[Site]:
    """http: lines of the table [http] besides `listen`. more: other tables. context: the client's, for TLS."""
    folder.mkdir(exist_ok=True)
    (folder / "tokens").write_text(f"{TOKEN} lyon/gw-1\n")
    port = free_port()
    config = await configured(folder, f'[http]\nlisten = "127.0.0.1:{port}"\n{http}{more}')
    assert config.http is not None
    listening = await asyncio.to_thread(open_listening, config.http)
    connector = aiohttp.TCPConnector(ssl=True if context is None else context)
    async with aiohttp.ClientSession(connector=connector) as client, running_worker(config, listening=listening) as rig:
        await rig.healthy()
        await rig.until(lambda: rig.worker.web is not None, "it serves")
        yield Site(rig, client, f"{'http' if context is None else 'https'}://127.0.0.1:{port}", port)


async def test_a_batch_and_a_hello_are_answered_as_over_a_broker(tmp_path: Path) -> None:
    async with served(tmp_path) as site:
        answer = await site.hello(hello_payload())
        ack = await site.batch(payload(1, 10))
        again = await site.batch(payload(1, 10, stream="health"))
    assert (answer.status, answer.receiver) == ("ok", "hub-db-1")
    assert (ack.status, ack.stream, ack.upto) == ("ok", "alarm", 10)
    assert (again.stream, again.upto) == ("health", 10)


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}, {"Authorization": "Bearer"}]
)
async def test_without_a_token_nothing_is_taken(tmp_path: Path, headers: dict[str, str]) -> None:
    async with served(tmp_path) as site:
        url = f"{site.base}/v1/sync/batch"
        async with site.client.post(url, data=payload(1, 10), headers=headers) as response:
            assert (response.status, response.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert site.rig.database.home == {}


async def test_hostile_payloads_are_refused_with_their_reason(tmp_path: Path) -> None:
    async def chunks(size: int) -> AsyncIterator[bytes]:
        yield payload(1, 5)
        for _ in range(size // 65_536):
            yield bytes(65_536)

    async with served(tmp_path) as site:
        cases = [
            (payload(1, 5, gateway="gw-2"), "foreign_gateway"),
            (payload(1, 5, n=7), "bad_header"),
            (b"", "bad_header"),
            (b"{" + b" " * 10_000_000 + b"}\n", "bad_header"),
            (payload(1, 5) + bytes(3_000_000), "too_large"),
            (payload(1, 5, sha256="0" * 64), "bad_checksum"),
        ]
        for data, reason in cases:
            ack = await site.batch(data)
            assert ack.reason == reason
        assert (await site.batch(chunks(3_000_000))).reason == "too_large"
        assert (await site.hello(b"{" + b" " * 400_000)).reason == "too_large"
        assert site.rig.database.home == {}
        assert (await site.batch(payload(1, 5))).status == "ok"
        assert site.rig.worker.receiver.door.batches == 0


async def test_a_compressed_request_is_not_unpacked_by_the_server(tmp_path: Path) -> None:
    async with served(tmp_path) as site:
        packed = await asyncio.to_thread(gzip.compress, b" " * 50_000_000)
        url = f"{site.base}/v1/sync/batch"
        headers = {**AS_GW, "Content-Encoding": "gzip"}
        async with site.client.post(url, data=packed, headers=headers) as response:
            assert decode_ack(await response.read()).reason == "bad_header"


async def test_when_there_is_no_room_the_body_is_not_even_read(tmp_path: Path) -> None:
    async with served(tmp_path, more="[limits]\nmax_inflight_per_gateway = 1\n") as site:
        site.rig.database.open.clear()
        first = asyncio.ensure_future(site.batch(payload(1, 5)))
        await site.rig.until(lambda: site.rig.database.waiting == 1, "the first is at the database")
        ack = await site.batch(payload(6, 9))
        site.rig.database.open.set()
        assert (await first).status == "ok"
    assert (ack.status, ack.reason, ack.first) == ("retry", "busy", 6)


async def test_who_hangs_up_in_the_middle_leaves_no_trace(tmp_path: Path) -> None:
    async with served(tmp_path) as site:
        data = payload(1, 5)
        head = (
            f"POST /v1/sync/batch HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 9999\r\n\r\n"
        )
        _reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(head.encode() + data)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        await site.rig.until(lambda: site.rig.worker.receiver.door.batches == 0, "it is out again")
        assert (await site.batch(data)).status == "ok"
        assert site.rig.database.commits == 1


async def test_health_says_why_not(tmp_path: Path) -> None:
    async with served(tmp_path) as site:
        assert await site.get("/healthz") == (200, '{"healthy": true, "faults": []}')
        site.rig.database.away_after = 0
        assert (await site.batch(payload(1, 5))).reason == "database_away"
        status, text = await site.get("/healthz")
        assert (status, json.loads(text)) == (503, {"healthy": False, "faults": ["database_away"]})


async def test_metrics_are_for_those_who_may_send_and_come_from_the_supervisor(tmp_path: Path) -> None:
    async with served(tmp_path) as site:
        assert (await site.get("/metrics"))[0] == 401
        status, text = await site.get("/metrics", AS_GW)
        assert status == 503
        assert "supervisor" in text


async def test_tokens_are_read_again_and_a_mistake_in_them_locks_nobody_out(tmp_path: Path) -> None:
    async with served(tmp_path) as site:
        side = site.rig.worker.web
        assert side is not None
        (tmp_path / "tokens").write_text("broken\n")
        with contextlib.suppress(Exception):
            await side._refresh_tokens()
        assert (await site.batch(payload(1, 5))).status == "ok"
        (tmp_path / "tokens").write_text(f"{'n' * 32} lyon/gw-1\n")
        await side._refresh_tokens()
        status = (await site.get("/metrics", AS_GW))[0]
        assert status == 401


async def test_a_client_certificate_says_who_it_is(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "ca"), Authority(tmp_path / "other", "another authority")
    server, server_key = authority.issue("hub")
    tls = f'cert_file = "{server}"\nkey_file = "{server_key}"\nclient_ca_file = "{authority.ca_file}"\n'

    def context(pair: tuple[Path, Path] | None) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(authority.ca_file))
        if pair is not None:
            made.load_cert_chain(*pair)
        return made

    ours = context(authority.issue("gw", subject="lyon/gw-1"))
    async with served(tmp_path / "hub", tls, context=ours) as site:
        ack = await site.batch(payload(1, 5), {"X-Nothing": "1"})
        assert ack.status == "ok"
        refused = await site.batch(payload(1, 5, gateway="gw-2"), {"X-Nothing": "1"})
        assert refused.reason == "foreign_gateway"
        for wrong in (context(None), context(stranger.issue("gw", subject="lyon/gw-1"))):
            connector = aiohttp.TCPConnector(ssl=wrong)
            async with aiohttp.ClientSession(connector=connector) as client:
                with pytest.raises((aiohttp.ClientError, ConnectionError)):
                    await client.post(f"{site.base}/v1/sync/batch", data=payload(1, 5))


async def test_certificate_and_token_must_not_disagree(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    server, server_key = authority.issue("hub")
    tls = f'cert_file = "{server}"\nkey_file = "{server_key}"\nclient_ca_file = "{authority.ca_file}"\n'
    context = ssl.create_default_context(cafile=str(authority.ca_file))
    context.load_cert_chain(*authority.issue("gw", subject="lyon/gw-2"))
    async with served(tmp_path / "hub", tls + 'tokens_file = "tokens"\n', context=context) as site:
        url = f"{site.base}/v1/sync/batch"
        async with site.client.post(url, data=payload(1, 5), headers=AS_GW) as response:
            assert response.status == 401
        ack = await site.batch(payload(1, 5, gateway="gw-2"), {"X-Nothing": "1"})
        assert ack.status == "ok"


async def test_connections_that_never_say_anything_are_dropped(tmp_path: Path) -> None:
    async with served(tmp_path) as site:
        side = site.rig.worker.web
        assert side is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        assert (await site.get("/healthz"))[0] == 200
        await site.rig.until(lambda: _sweeps(side, 0) == 1, "it is seen")
        _sweeps(side, int(web.FIRST_REQUEST_WITHIN_S * 1e9) + 1)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        assert (await site.get("/healthz"))[0] == 200


def _sweeps(side: web.HttpSide, later_ns: int) -> int:
    """Sweep as if so much time had passed; how many are silent."""
    side._silent_since_ns = {each: since - later_ns for each, since in side._silent_since_ns.items()}
    side._sweep()
    return len(side._silent_since_ns)


async def test_a_hub_that_stops_answers_what_is_in_hand(tmp_path: Path) -> None:
    async with served(tmp_path) as site:
        site.rig.database.open.clear()
        first = asyncio.ensure_future(site.batch(payload(1, 5)))
        await site.rig.until(lambda: site.rig.database.waiting == 1, "the batch is at the database")
        site.rig.stop.set()
        await asyncio.sleep(0)
        site.rig.database.open.set()
        assert (await first).status == "ok"


def test_a_port_that_is_taken_says_so(tmp_path: Path) -> None:
    from edged.errors import EdgedError
    from edged.hub.settings import HttpTable

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(EdgedError, match="listening on"):
            open_listening(HttpTable(listen=f"127.0.0.1:{taken.getsockname()[1]}"))
    open_listening(HttpTable(listen="[::1]:0")).close()
