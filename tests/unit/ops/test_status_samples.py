"""The status document as metrics."""

from __future__ import annotations

from collections.abc import Mapping

from edged.ops.status_samples import status_samples

STATUS = {
    "mode": "degraded",
    "reasons": [{"code": "gap", "subject": "sequence", "since": "…", "detail": "d"}],
    "ledger": {
        "inputs": {"pump": {"received": 10, "stored": 8, "refused": {"not_json": 2}, "shed": {}}},
        "results": {"result": {"stored": 8, "delivered": 3, "evicted": {"budget": 1}}},
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
    assert by_name(STATUS) == {
        ("edged_reason", "gap", "sequence"): 1,
        ("edged_ledger_results", "result", "stored", ""): 8,
        ("edged_ledger_results", "result", "delivered", ""): 3,
        ("edged_ledger_results", "result", "evicted", "budget"): 1,
        ("edged_status_pipeline_waiting", "pump"): 4,
        ("edged_status_link_up",): 1,
        ("edged_status_link_received",): 10,
        ("edged_status_store_file_bytes",): 4096,
        ("edged_status_host_rss_bytes",): 70_000_000,
    }


def test_a_document_with_nothing_in_it_has_no_samples_and_does_not_fail() -> None:
    assert by_name({}) == {}
    assert by_name({"reasons": ["gap", 1], "ledger": {"results": []}, "link": None, "pipelines": {"p": 1}}) == {
        ("edged_reason", "", ""): 1
    }
