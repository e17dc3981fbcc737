"""The status document as metrics."""

from __future__ import annotations

from collections.abc import Mapping

from edged.ops.status_samples import status_samples
from edged.policy.mode import MODES

STATUS = {
    "mode": "degraded",
    "reasons": [{"code": "gap", "subject": "sequence", "since": "…", "detail": "d"}],
    "ledger": {
        "inputs": {"pump": {"received": 10, "stored": 8, "refused": {"not_json": 2}, "shed": {}}},
        "results": {"result": {"stored": 8, "delivered": 3}},
        "balanced": True,
    },
    "devices": {"online": 3, "stale": 0},
    "pipelines": {"pump": {"waiting": 4, "model": "m", "lane": {"waiting": 1}}},
    "link": {"up": True, "protocol": "5", "received": 10},
    "store": {"file_bytes": 4096, "trouble": ""},
    "host": {"rss_bytes": 70_000_000, "temperature_c": None},
}


def by_name(status: Mapping[str, object]) -> dict[tuple[str, ...], float | None]:
    return {(sample.name, *sample.labels.values()): sample.value for sample in status_samples(status)}


def test_every_number_of_the_document_becomes_a_sample() -> None:
    found = by_name(STATUS)
    assert [found["edged_mode", name] for name in MODES] == [0, 0, 1, 0, 0, 0]
    assert {key: value for key, value in found.items() if key[0] != "edged_mode"} == {
        ("edged_reason", "gap", "sequence"): 1,
        ("edged_ledger_inputs", "pump", "received", ""): 10,
        ("edged_ledger_inputs", "pump", "stored", ""): 8,
        ("edged_ledger_inputs", "pump", "refused", "not_json"): 2,
        ("edged_ledger_results", "result", "stored", ""): 8,
        ("edged_ledger_results", "result", "delivered", ""): 3,
        ("edged_devices", "online"): 3,
        ("edged_devices", "stale"): 0,
        ("edged_pipeline_waiting", "pump"): 4,
        ("edged_link_up",): 1,
        ("edged_link_received",): 10,
        ("edged_store_file_bytes",): 4096,
        ("edged_host_rss_bytes",): 70_000_000,
    }


def test_a_document_with_nothing_in_it_shows_no_mode_and_does_not_fail() -> None:
    assert set(by_name({}).values()) == {0}
    assert set(by_name({"reasons": ["gap"], "ledger": [], "link": None})) >= {("edged_mode", "normal")}
