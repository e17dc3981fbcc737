"""What the hub does not take: garbled batches are given up and kept aside, an unwelcome gateway keeps everything."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edged.messages import ResultColumns
from edged.sync.envelope import seal
from edged.sync.piece import Piece
from tests.doubles.broker import Mosquitto
from tests.doubles.chaos_link import Direction
from tests.doubles.hub_books import HubBooks
from tests.doubles.light_gateway import LightGateway, rows
from tests.doubles.upstream_site import Hub, UpstreamSite
from tests.doubles.waiting import until


class Garbler:
    """Turns the checksum of the first batch of results into a wrong one, however often it is sent."""

    def __init__(self) -> None:
        self._victim = b""
        self.garbled = 0

    def __call__(self, direction: Direction, data: bytes) -> bytes:
        at = data.find(b'"sha256":"')
        if direction == "down" or at < 0 or b'"stream":"result"' not in data:
            return data
        begin = at + len(b'"sha256":"')
        checksum = data[begin : begin + 64]
        self._victim = self._victim or checksum
        if checksum != self._victim or len(checksum) < 64:
            return data
        self.garbled += 1
        return data[:begin] + b"0" * 64 + data[begin + 64 :]


def test_a_batch_that_is_refused_leaves_a_tombstone_and_a_copy_and_the_line_moves_on(
    tmp_path: Path, single_model: Path
) -> None:
    with UpstreamSite(tmp_path, single_model) as site:
        garbler = Garbler()
        site.link.garble(garbler)
        site.sensors.round(5)
        until(lambda: garbler.garbled >= 2, "the batch comes a second time, as it was")
        site.until(lambda: "upstream_rejecting" in site.daemon.codes(), "the mode gives upstream_rejecting")
        site.sensors.round(20)
        site.settle()
        account = site.account()
        assert account.problems == []
        assert account.made == account.rows + account.tombstoned == 100
        assert 0 < account.tombstoned <= 20
        assert {reason for _, _, _, reason in site.books.tombstones()} == {"rejected:bad_checksum"}
        kept = [path for path in site.daemon.state.rglob("*") if "quarantine" in str(path) and path.is_file()]
        assert kept, "a copy is kept for whoever wants to know why"


def test_a_gateway_that_the_hub_does_not_know_gives_up_nothing(tmp_path: Path, single_model: Path) -> None:
    with UpstreamSite(tmp_path, single_model, allow="other/*") as site:
        site.sensors.round(50)
        site.sensors.pause()
        site.scada.until_results(200)
        site.until(lambda: "upstream_refused" in site.daemon.codes(), "the mode gives upstream_refused")
        assert site.books.ask("SELECT count(*) FROM ledger") == [(0,)]
        site.hub.kill()
        site.hub.allow("plant/*")
        site.hub.start()
        site.link.drop()  # it would ask again by itself, but not within a test
        site.settle()
        account = site.account()
        assert (account.problems, account.rows) == ([], 200)


def test_a_row_that_no_database_takes_is_set_aside_and_its_neighbours_are_home(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'hub.db'}"
    bad = rows(1, 10)
    bad.quality[4] = 1 << 40
    payload = seal(Piece("result", "epoch-1", 1, 1, 10, "boot-1", "synced", bad, None), site="plant", gateway="gw")[1]
    assert isinstance(msgspec.convert(bad, ResultColumns, from_attributes=True), ResultColumns)
    with (
        Mosquitto(tmp_path) as broker,
        Hub(tmp_path, database, broker_port=broker.port) as hub,
        LightGateway(broker.port, "gw") as gateway,
    ):
        hub.start()
        gateway.connect()
        gateway.say(payload)
        answer = gateway.answer_to(lambda answer: answer.status == "ok")
        assert [row.seq for row in answer.bad] == [5]
        assert answer.upto == 10
        books = HubBooks(database)
        assert [row[1] for row in books.results()] == [1, 2, 3, 4, 6, 7, 8, 9, 10]
        assert books.ledger()["epoch-1", "result"] == {
            "base": 1, "made": 10, "rows": 9, "tombstoned": 0, "quarantined": 1, "missing": 0,
        }  # fmt: skip


def test_of_two_receivers_only_the_first_one_counts(tmp_path: Path, single_model: Path) -> None:
    """Somebody starts a second hub, with a database of its own, on the same broker."""
    other = f"sqlite:///{tmp_path / 'other.db'}"
    with UpstreamSite(tmp_path, single_model) as site:
        site.sensors.round(20)
        site.settle()
        with Hub(tmp_path / "other", other, broker_port=site.broker.port, broker="shared = false") as second:
            second.start()
            site.sensors.round(50)
            site.settle()
            site.until(lambda: "receiver_foreign" in site.daemon.codes(), "the mode gives receiver_foreign")
            site.hub.kill()  # what the second one says is still worth nothing
            site.sensors.round(50)
            site.sensors.pause()
            site.scada.until_results(480)
            until(lambda: HubBooks(other).count() >= 1, "the second one takes what it gets")
            site.hub.start()
            site.link.drop()
            site.settle()
        account = site.account()
        assert (account.problems, account.rows) == ([], 480)
