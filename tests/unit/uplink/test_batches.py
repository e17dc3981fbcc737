"""What is read from the store becomes a batch that travels, whatever its size."""

from __future__ import annotations

from edged.config.settings import Upstream
from edged.sync.effects import Read
from edged.sync.envelope import decode_hello, open_body, read_header
from edged.sync.lanes import LANES, Lane
from edged.sync.protocol import BODY_MAX_BYTES, Stream, StreamExtent
from edged.uplink.batches import Batches
from edged.uplink.lines import Start
from tests.doubles.outward import ListedOutward, Span

START = Start(site="s", gateway="g", version="1.2", state_dir="/", upstream=Upstream(url="mqtt://hub"))


def lane(stream: Stream) -> Lane:
    return next(lane for lane in LANES if lane.stream == stream and lane.part == "past")


def test_rows_are_sealed_as_they_stand_in_the_store() -> None:
    batches = Batches(START, "run", ListedOutward(Span("result", "e1", 1, 50)))
    batch = batches.batch(Read(7, lane("result"), 11, 20))

    assert batch is not None
    assert (batch.epoch, batch.first, batch.last, batch.lost) == ("e1", 11, 30, False)
    header, body = read_header(batch.payload)
    assert (header.site, header.gateway, header.n, header.base) == ("s", "g", 20, 1)
    rows, lost = open_body(header, body)
    assert rows is not None
    assert lost is None


def test_a_number_that_is_not_made_yet_gives_nothing() -> None:
    assert Batches(START, "run", ListedOutward()).batch(Read(1, lane("result"), 1, 10)) is None


def test_a_tombstone_travels_as_one_however_many_numbers_it_stands_for() -> None:
    batches = Batches(START, "run", ListedOutward(Span("result", "e1", 1, 3_000_000, "budget")))
    batch = batches.batch(Read(1, lane("result"), 1, 10))

    assert batch is not None
    assert (batch.first, batch.last, batch.lost) == (1, 3_000_000, True)


def test_rows_that_exceed_the_bounds_of_a_batch_are_halved_until_they_fit() -> None:
    outward = ListedOutward(Span("alarm", "e1", 1, 100), payload_bytes=100_000)
    batch = Batches(START, "run", outward).batch(Read(1, lane("alarm"), 1, 100))

    assert batch is not None
    assert 1 < batch.last < 100
    assert len(batch.payload) <= BODY_MAX_BYTES + 4096


def test_a_single_row_that_fits_into_no_batch_is_said_by_an_empty_payload() -> None:
    outward = ListedOutward(Span("alarm", "e1", 1, 3), payload_bytes=9_000_000)
    batch = Batches(START, "run", outward).batch(Read(1, lane("alarm"), 1, 3))

    assert batch is not None
    assert (batch.first, batch.last, batch.payload) == (1, 1, b"")


def test_hello_names_the_streams_that_are_sent_and_the_newest_starts() -> None:
    outward = ListedOutward(Span("result", "e1", 1, 5), Span("telemetry", "e1", 1, 9), Span("result", "e2", 6, 7))
    batches = Batches(START, "run", outward)
    hello = decode_hello(batches.hello(batches.extents()))

    assert (hello.site, hello.gateway, hello.instance, hello.version, hello.epoch) == ("s", "g", "run", "1.2", "e2")
    assert hello.extents == (StreamExtent("e1", "result", 1, 6), StreamExtent("e2", "result", 6, 8))
    assert [probe.seq for probe in hello.probes] == [1, 6]
    batches.close()
    assert outward.closed


def test_hello_of_an_empty_store_can_be_read() -> None:
    assert decode_hello(Batches(START, "run", ListedOutward()).hello(())).extents == ()
