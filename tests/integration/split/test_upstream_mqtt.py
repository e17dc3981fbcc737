"""Questions over a real broker to a hub that behaves badly: every one ends in its answer or in a reason, in time."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edged.errors import InferenceError, ModelError
from edged.infer.upstream import UpstreamAddress
from edged.infer.upstream_mqtt import MqttUpstream, connect
from tests.doubles.broker import Mosquitto, ScriptedBroker, Visitor, free_port, running
from tests.doubles.certificates import Authority
from tests.doubles.chaos_link import ChaosLink, Shape
from tests.doubles.inference_hub import Arrays, Reply, ScriptedHub, answer
from tests.doubles.waiting import until

MODEL = "ab" * 32
X = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
FAST = 1_000_000


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    yield from running(tmp_path)


@pytest.fixture
def upstream(broker: Mosquitto) -> Iterator[MqttUpstream]:
    made = MqttUpstream(address(broker))
    yield made
    made.close()


def address(broker: Mosquitto, kbit_s: int = FAST) -> UpstreamAddress:
    return UpstreamAddress("127.0.0.1", broker.port, "lyon", "gw-01", kbit_s=kbit_s)


def doubled(tensors: Arrays) -> Arrays:
    return {"y": tensors["x"] * 2}


def code_of(upstream: MqttUpstream, deadline_s: float = 5.0, tensors: Arrays = X) -> str:
    with pytest.raises(InferenceError) as failed:
        upstream.ask(MODEL, tensors, deadline_s)
    return failed.value.code


def test_a_question_is_answered_and_says_how_to(broker: Mosquitto, upstream: MqttUpstream) -> None:
    with ScriptedHub(broker.port, lambda asked, tensors: [Reply(answer(asked, doubled(tensors)))]) as hub:
        outputs = upstream.ask(MODEL, X, 10.0)

    assert np.array_equal(outputs["y"], X["x"] * 2)
    (asked,), (said,) = hub.asked, hub.properties
    assert (asked.site, asked.gateway, asked.model) == ("lyon", "gw-01", MODEL)
    assert asked.answer_to.startswith("edged/v1/lyon/gw-01/infer/answer/")
    assert (said.ResponseTopic, said.CorrelationData.hex()) == (asked.answer_to, asked.id)
    assert 1 <= said.MessageExpiryInterval <= 10
    assert upstream.statistics()[:4] == (1, 1, 0, 0)


def test_nobody_answers_and_the_deadline_holds(broker: Mosquitto, upstream: MqttUpstream) -> None:
    with ScriptedHub(broker.port, lambda asked, tensors: [Reply(answer(asked, doubled(tensors)))]):
        upstream.ask(MODEL, X, 10.0)
    begun = time.monotonic()

    assert code_of(upstream, 0.2) == "upstream_timeout"
    assert 0.19 < time.monotonic() - begun < 5.0


def test_a_late_answer_is_never_the_answer_to_another_question(broker: Mosquitto, upstream: MqttUpstream) -> None:
    late: list[tuple[object, Arrays]] = []

    def keep(asked: object, tensors: Arrays) -> list[Reply]:
        late.append((asked, tensors))
        return []

    with ScriptedHub(broker.port, keep) as hub:
        assert code_of(upstream, 0.5) == "upstream_timeout"
        until(lambda: hub.asked, "the question came")
        first = hub.asked[0]
        wrong = {"y": np.full((2, 3), 77.0, np.float32)}
        hub.script = lambda asked, tensors: [Reply(answer(first, wrong), bytes.fromhex(first.id)),
                                             Reply(answer(asked, doubled(tensors)))]  # fmt: skip
        outputs = upstream.ask(MODEL, X, 10.0)

    assert np.array_equal(outputs["y"], X["x"] * 2)
    assert (upstream.statistics().late, upstream.statistics().foreign) == (1, 0)


def test_answers_to_nothing_that_was_asked_are_dropped_and_counted(broker: Mosquitto, upstream: MqttUpstream) -> None:
    def script(asked: object, tensors: Arrays) -> list[Reply]:
        right = answer(asked, doubled(tensors))  # type: ignore[arg-type]
        return [Reply(b"x", b"\1" * 16), Reply(right, b""), Reply(right, b"no such id"), Reply(right), Reply(right)]

    with ScriptedHub(broker.port, script):
        outputs = upstream.ask(MODEL, X, 10.0)
        until(lambda: upstream.statistics().late + upstream.statistics().foreign == 4, "all replies came")

    assert np.array_equal(outputs["y"], X["x"] * 2)


@pytest.mark.parametrize(
    "kind", ["garbage", "another id", "another model", "a flipped bit", "a refusal", "nothing at all"]
)
def test_an_answer_that_cannot_be_used_is_a_refusal_at_once(
    broker: Mosquitto, upstream: MqttUpstream, kind: str
) -> None:
    def script(asked: object, tensors: Arrays) -> list[Reply]:
        right = answer(asked, doubled(tensors))  # type: ignore[arg-type]
        bad = {
            "garbage": b"\xff\0{",
            "another id": answer(asked, doubled(tensors), id="0" * 32),  # type: ignore[arg-type]
            "another model": answer(asked, doubled(tensors), model="0" * 64),  # type: ignore[arg-type]
            "a flipped bit": right[:-1] + bytes((right[-1] ^ 64,)),
            "a refusal": answer(asked, {}, status="refused", reason="unknown_model"),  # type: ignore[arg-type]
            "nothing at all": b"",
        }
        return [Reply(bad[kind])]

    with ScriptedHub(broker.port, script):
        begun = time.monotonic()
        assert code_of(upstream, 30.0) == "upstream_refused"

    assert time.monotonic() - begun < 20.0
    assert upstream.statistics().refused == 1


def test_an_expired_question_is_a_timeout(broker: Mosquitto, upstream: MqttUpstream) -> None:
    with ScriptedHub(broker.port, lambda asked, _: [Reply(answer(asked, {}, status="refused", reason="expired"))]):
        assert code_of(upstream, 10.0) == "upstream_timeout"


def test_without_a_broker_it_fails_at_once_and_comes_back_with_it(broker: Mosquitto) -> None:
    broker.kill()
    upstream = MqttUpstream(address(broker))
    try:
        assert code_of(upstream, 10.0) == "upstream_away"
        begun = time.monotonic()
        assert code_of(upstream, 10.0) == "upstream_away"
        assert time.monotonic() - begun < 1.0
        broker.start()
        with ScriptedHub(broker.port, lambda asked, tensors: [Reply(answer(asked, doubled(tensors)))]):
            until(lambda: answers(upstream), "the upstream answers again", 30.0)
    finally:
        upstream.close()


def answers(upstream: MqttUpstream) -> bool:
    try:
        return bool(upstream.ask(MODEL, X, 2.0))
    except InferenceError:
        return False


def test_a_line_that_breaks_in_the_middle_of_a_question_is_noticed_before_the_deadline(
    broker: Mosquitto, upstream: MqttUpstream
) -> None:
    broke = threading.Thread(target=broker.kill)

    def script(asked: object, tensors: Arrays) -> list[Reply]:
        broke.start()
        return []

    with ScriptedHub(broker.port, script):
        begun = time.monotonic()
        assert code_of(upstream, 50.0) == "upstream_away"
        assert time.monotonic() - begun < 30.0
        broke.join()


def test_a_broker_that_hangs_costs_a_deadline_and_no_memory(broker: Mosquitto, upstream: MqttUpstream) -> None:
    with ScriptedHub(broker.port, lambda asked, tensors: [Reply(answer(asked, doubled(tensors)))]):
        upstream.ask(MODEL, X, 10.0)
        broker.stop()
        noise = {"x": np.random.default_rng(1).integers(0, 255, 1_500_000, np.uint8)}
        codes = [code_of(upstream, 0.3, noise) for _ in range(20)]
        sent = upstream.statistics().asked
        broker.resume()

    assert set(codes) <= {"upstream_timeout", "upstream_busy"}
    assert codes[-1] == "upstream_busy"
    assert sent < 15


def test_the_rate_is_kept(broker: Mosquitto) -> None:
    noise = {"x": np.random.default_rng(1).integers(0, 255, 10_000, np.uint8)}
    upstream = MqttUpstream(address(broker, kbit_s=400))  # 50 kB/s: a question is 0.2 s
    try:
        with ScriptedHub(broker.port, lambda asked, tensors: [Reply(answer(asked, {"y": tensors["x"][:1]}))]):
            upstream.ask(MODEL, noise, 10.0)
            begun = time.monotonic()
            for _ in range(3):
                upstream.ask(MODEL, noise, 10.0)
            taken = time.monotonic() - begun
            assert code_of(upstream, 0.05, noise) == "upstream_busy"
    finally:
        upstream.close()

    assert taken >= 0.55


def test_no_more_than_a_few_are_on_their_way_at_once(broker: Mosquitto, upstream: MqttUpstream) -> None:
    outputs: list[object] = []
    threads = [threading.Thread(target=lambda: outputs.append(upstream.ask(MODEL, X, 50.0))) for _ in range(4)]
    with ScriptedHub(broker.port, lambda asked, tensors: []) as hub:
        for thread in threads:
            thread.start()
        until(lambda: len(hub.asked) == 4, "four questions came")
        codes = {code_of(upstream, 0.2) for _ in range(3)}
        for asked in list(hub.asked):
            hub.send(asked, Reply(answer(asked, doubled(X))))
        for thread in threads:
            thread.join(30)

    assert codes == {"upstream_busy"}
    assert (len(hub.asked), len(outputs)) == (4, 4)


def test_a_closed_line_says_so_and_closing_again_is_nothing(broker: Mosquitto) -> None:
    upstream = MqttUpstream(address(broker))
    upstream.close()
    upstream.close()

    assert code_of(upstream) == "closed"


def test_what_does_not_travel_is_the_inputs_fault(upstream: MqttUpstream) -> None:
    assert code_of(upstream, tensors={"x": np.zeros(2, np.complex64)}) == "invalid_input"


def test_a_question_that_is_too_large_is_not_sent(broker: Mosquitto, upstream: MqttUpstream) -> None:
    noise = {"x": np.random.default_rng(1).integers(0, 255, 3_000_000, np.uint8)}

    with ScriptedHub(broker.port, lambda asked, tensors: []) as hub:
        assert code_of(upstream, 10.0, noise) == "upstream_refused"

    assert hub.asked == []


def test_all_who_ask_one_address_share_a_connection(broker: Mosquitto) -> None:
    first, second = connect(address(broker)), connect(address(broker))
    with ScriptedHub(broker.port, lambda asked, tensors: [Reply(answer(asked, doubled(tensors)))]):
        first.ask(MODEL, X, 10.0)
        first.close()
        first.close()
        second.ask(MODEL, X, 10.0)
        assert second.statistics().answered == 2
        second.close()

    with pytest.raises(InferenceError, match="closed"):
        second.ask(MODEL, X, 1.0)


def test_a_password_from_a_file_and_a_refusal_of_the_broker(tmp_path: Path) -> None:
    (tmp_path / "passwords").write_text("")
    with Mosquitto(tmp_path, "allow_anonymous false", f"password_file {tmp_path}/passwords") as broker:
        (tmp_path / "secret").write_text("wrong\n")
        wrong = address(broker)._replace(username="gw", password_file=str(tmp_path / "secret"))
        upstream = MqttUpstream(wrong)
        try:
            with pytest.raises(InferenceError, match="the broker refuses us") as refused:
                upstream.ask(MODEL, X, 10.0)
        finally:
            upstream.close()

    assert refused.value.code == "upstream_away"


def test_tls_with_a_certificate_of_our_own(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    (certificate, key), (own, own_key) = authority.issue("server"), authority.issue("gw-01")
    options = (f"cafile {authority.ca_file}", f"certfile {certificate}", f"keyfile {key}", "require_certificate true")
    with Mosquitto(tmp_path, *options) as broker:
        upstream = MqttUpstream(
            address(broker)._replace(
                tls=True, ca_file=str(authority.ca_file), cert_file=str(own), key_file=str(own_key)
            )
        )
        try:
            assert code_of(upstream, 1.0) == "upstream_timeout"  # connected, but nobody answers
        finally:
            upstream.close()


def test_certificates_that_cannot_be_read_are_told_at_load(tmp_path: Path) -> None:
    bad = UpstreamAddress("127.0.0.1", free_port(), "lyon", "gw-01", tls=True, ca_file=str(tmp_path / "none.pem"))

    with pytest.raises(ModelError, match="TLS files") as refused:
        MqttUpstream(bad)

    assert refused.value.code == "device_unavailable"


async def test_a_broken_packet_ends_the_connection_and_not_the_line() -> None:
    async def broken(visitor: Visitor) -> None:
        await visitor.accept()
        await visitor.send(b"\x30\x06\x00\x01t\x02\x7f\x00")  # a PUBLISH with a property that there is not
        await visitor.packet_of(0xE0)

    async with ScriptedBroker(broken) as scripted:
        there = UpstreamAddress("127.0.0.1", scripted.port, "lyon", "gw-01")
        upstream = await asyncio.to_thread(MqttUpstream, there)
        try:
            async with asyncio.timeout(30):
                while scripted.connections < 3:
                    assert await asyncio.to_thread(code_of, upstream, 0.2) in {"upstream_away", "upstream_timeout"}
        finally:
            await asyncio.to_thread(upstream.close)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # it is paho's, and the point
def test_a_client_whose_thread_has_died_is_replaced_and_the_question_fails_at_once() -> None:
    upstream = MqttUpstream(UpstreamAddress("a..b", 1883, "lyon", "gw-01"))  # no host: paho does not expect the error
    try:
        first = upstream._line
        until(lambda: not first.alive, "its thread has died")
        assert code_of(upstream, 20.0) == "upstream_away"
        assert upstream._line is not first
    finally:
        upstream.close()
    until(lambda: not [each for each in threading.enumerate() if "edged-ask" in each.name], "all threads have ended")


def test_a_subscription_that_the_broker_refuses_is_told(tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("topic write edged/v1/#\n")
    with Mosquitto(tmp_path, f"acl_file {tmp_path}/acl") as broker:
        upstream = MqttUpstream(address(broker))
        try:
            code = code_of(upstream, 1.0)
        finally:
            upstream.close()

    assert code in {"upstream_away", "upstream_timeout"}  # this broker grants what it will not deliver


def test_questions_without_end_leave_the_line_to_alarms(broker: Mosquitto) -> None:
    """A line of 256 kbit/s that both share: an alarm waits for the question before it, never for a queue of them."""
    tensor = {"x": np.random.default_rng(1).integers(0, 255, 4000, np.uint8)}  # 0.125 s of the line
    stop = threading.Event()
    with ChaosLink(broker.port, Shape(rate_bytes_s=32_000)) as line, ScriptedHub(broker.port, lambda *_: []):
        upstream = MqttUpstream(address(broker, kbit_s=64)._replace(port=line.port))
        alarms = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        alarms.connect("127.0.0.1", line.port)
        alarms.loop_start()

        def ask_on() -> None:
            while not stop.is_set():
                with contextlib.suppress(InferenceError):
                    upstream.ask(MODEL, tensor, 0.4)

        threads = [threading.Thread(target=ask_on) for _ in range(6)]
        for thread in threads:
            thread.start()
        try:
            until(lambda: upstream.statistics().asked >= 2, "questions flow")
            begun, before, waited = time.monotonic(), upstream.statistics().sent_bytes, []
            for _ in range(20):
                sent = time.monotonic()
                alarms.publish("edged/v1/lyon/gw-01/alarm", b"x" * 300, qos=1).wait_for_publish(20)
                waited.append(time.monotonic() - sent)
                time.sleep(0.1)
            taken_bytes_s = (upstream.statistics().sent_bytes - before) / (time.monotonic() - begun)
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
            upstream.close()
            alarms.disconnect()
            alarms.loop_stop()

    assert sorted(waited)[-2] < 1.0, waited  # one may have met the machine's other work
    assert taken_bytes_s < 12_000  # 8 000, and a question more at the end
