"""Every cause of a mode: what it asks for, how it is noticed, what happens, how it ends. The table is the document.

`docs/modes.md` is made from it, together with the governor's ladder and the states of a chain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from edged.policy.governor import EASING, LADDER, LINGERING, RUNGS, SAMPLE_INTERVAL_S, STEP_HOLD_S, Level
from edged.policy.governor import Cause as Pressure

Mode = Literal["normal", "offline", "degraded", "shedding", "rules", "safe"]

MODES: tuple[Mode, ...] = ("normal", "offline", "degraded", "shedding", "rules", "safe")
"""From best to worst."""

MEANINGS: Mapping[Mode, str] = {
    "normal": "everything works as configured",
    "offline": "the receiver of the results is away; they are stored and sent later",
    "degraded": "answers are right but something is not as configured: a fallback, a reduced rate, a loss",
    "shedding": "storage or compute pressure: declared losses",
    "rules": "no usable model; declared rules answer",
    "safe": "no trustworthy answer: quality 0, alarms only",
}


class Cause(NamedTuple):
    """One row of the table: a reason code, the mode it asks for, and what people need to know about it."""

    mode: Mode
    hold_s: int
    detected: str
    action: str
    scada: str
    end: str


_SEEN_AT: Mapping[Level, str] = {
    "full": "nothing",
    "lower_rate": "fewer results of pipelines that may be slowed, with `degraded` true",
    "smaller_model": "the same, and `model` names the smaller one where a pipeline has one",
    "summaries": "the same at a quarter of the rate; alarms as ever",
    "essential": "results only of pipelines that raise alarms; the books count the others under `not_essential`",
}


def _pressure(row: Pressure) -> Cause:
    """A row of the governor's ladder as a cause. The governor itself holds it, so that it leaves here at once."""
    enters, leaves = ("≤", "≥") if row.worse == "falls" else ("≥", "≤")
    return Cause(
        RUNGS[row.level].mode,
        0,
        f"{row.samples * SAMPLE_INTERVAL_S} s: `{row.fact}` {enters} {row.enter:,.9g} in {row.samples} "
        f"sample{'s' if row.samples > 1 else ''} in a row",
        f"level `{row.level}`: {RUNGS[row.level].meaning}",
        _SEEN_AT[row.level],
        f"`{row.fact}` {leaves} {row.leave:,.9g} for {row.hold_s} s; then one level less every {STEP_HOLD_S} s",
    )


CAUSES: Mapping[str, Cause] = {
    "broker_away": Cause(
        "offline",
        5,
        "at once when the connection closes; a silent one within 1.5 keep-alive intervals",
        "stores, reconnects with full jitter",
        "`R/state` offline by Will; results come later with `historical` true",
        "connected and subscribed again",
    ),
    "upstream_away": Cause(
        "offline",
        10,
        "when the connection closes, a silent one within 1.5 keep-alive intervals; 5 s after a hello without answer",
        "stores, reconnects with full jitter; what is home stays home",
        "nothing changes at the plant; the receiver gets everything later",
        "the receiver has answered `hello`",
    ),
    "upstream_refused": Cause(
        "offline",
        10,
        "with the answer to `hello`",
        "stores, asks again with growing pauses",
        "nothing changes at the plant",
        "the receiver accepts this gateway",
    ),
    "upstream_slow": Cause(
        "offline",
        10,
        "with an answer `retry`",
        "stores, sends again when the receiver said",
        "nothing changes at the plant",
        "the receiver has committed a batch",
    ),
    "upstream_rejecting": Cause(
        "degraded",
        600,
        "with an answer `reject`",
        "a copy goes to the quarantine folder, a tombstone takes the place of the rows, the line moves on",
        "nothing changes at the plant; the receiver's `tombstones` name the range",
        "no batch was rejected for the holding time",
    ),
    "receiver_foreign": Cause(
        "offline",
        60,
        "with the first answer of a receiver that is not ours",
        "ignores it: only our receiver may call rows home",
        "nothing changes at the plant",
        "our receiver answers, or `upstream.receiver` names the other one",
    ),
    "uplink_failed": Cause(
        "offline",
        60,
        "when the uplink's process has ended three times in a row",
        "stores, starts it again with growing pauses",
        "nothing changes at the plant",
        "the uplink has run for ten seconds",
    ),
    "backlog_aged": Cause(
        "shedding",
        600,
        "with the first rows given up before they were home",
        "gives up by class: raw events, then old results, which leave a summary by minute; alarms last",
        "nothing changes at the plant; the receiver gets tombstones and summaries in their place",
        "nothing was given up for the holding time",
    ),
    "fallback_runtime": Cause(
        "degraded",
        10,
        "with the first call that the next runtime of the chain answers, before its result is written",
        "serves with the next runtime of the chain, loads and probes the better one in the background",
        "`degraded` true, `runtime` names what computed",
        "the first runtime of the chain has answered rightly several times over its holding time, and serves again",
    ),
    "model_slow": Cause(
        "normal",
        10,
        "within 2 s after a runtime has been loaded: its measured warm call takes longer than `limits.p99_ms`",
        "serves all the same",
        "`latency_ms.infer` beyond what the class of hardware promises; the mode stays as it is",
        "a faster runtime of the chain serves",
    ),
    "accelerator_lost": Cause(
        "degraded",
        10,
        "with the call that fails: a crash within 20 ms, a hang within 50 ms after `hang_ms`",
        "ends the device's process, loads it again after a pause that grows",
        "`fallback_runtime` or `model_unusable` say what it means for the results",
        "the device has been loaded and proved again",
    ),
    "needs_power_cycle": Cause(
        "degraded",
        10,
        "when a device has failed more often than the budget of restarts allows",
        "goes on without it, asks again every half hour",
        "alarm in `status` and log",
        "the device has been loaded and proved again",
    ),
    "rung_disabled": Cause(
        "normal",
        60,
        "when a runtime of the chain is loaded or probed, before it answers anything",
        "never asks it: it computes something else than the rest of the chain, or elsewhere than it says",
        "alarm in `status` and log; another runtime that answers instead is a reason of its own",
        "a restart with another model, runtime or configuration",
    ),
    "larger_model_away": Cause(
        "degraded",
        10,
        "when the larger model of a cascade is loaded, or with the first call that no runtime of its chain answers",
        "answers with the small model alone, loads and probes the larger one in the background",
        "what the small model was unsure of: quality 64, reason `escalation_failed`",
        "a runtime of the larger model's chain serves",
    ),
    "accelerator_required": Cause(
        "safe",
        10,
        "with the first call that no accelerator can answer, or when none can be loaded at the start",
        "answers null: `require_accelerator` forbids the processor and rules",
        "quality 0, reason `accelerator_required`",
        "an accelerator of the chain serves",
    ),
    "runtime_stuck": Cause(
        "degraded",
        60,
        "one call runs longer than `stuck_after_s`",
        "abandons the call, fresh session in a fresh thread",
        "the results of that call: quality 0, reason `infer_timeout`",
        "the abandoned call returned; beyond the limit of abandoned calls only a restart ends it",
    ),
    "lane_behind": Cause(
        "degraded",
        10,
        "the queue of a slow model is full",
        "commits and acknowledges events, infers them from the store afterwards",
        "results late, `latency_ms.queue` grows",
        "the queue has room and nothing waits in the store",
    ),
    "events_shed": Cause(
        "shedding",
        10,
        "with the first event shed",
        "drops by the declared policy and counts by reason",
        "fewer results, `R/health` counts the shed",
        "nothing was shed for the holding time",
    ),
    "publish_denied": Cause(
        "degraded",
        60,
        "reason code of the PUBACK; on MQTT 3.1.1 a canary",
        "keeps the results, raises an alarm",
        "results missing, alarm in `status` and log",
        "a publish is accepted again",
    ),
    "subscribe_denied": Cause(
        "degraded",
        60,
        "reason code of the SUBACK",
        "serves the granted filters, asks again at the next connection",
        "`R/state` does not say online",
        "all filters are granted",
    ),
    "duplicate_client_id": Cause(
        "degraded",
        60,
        "session taken over again and again",
        "backs off, raises an alarm that names the client id",
        "`R/state` flaps",
        "no take-over for the holding time",
    ),
    "store_full": Cause(
        "shedding",
        30,
        "at the first commit without room",
        "evicts the oldest sent, then the oldest unsent; counts and leaves tombstones",
        "`R/gap`, ledger term `evicted`",
        "commits fit the budget again",
    ),
    "store_io": Cause(
        "degraded",
        30,
        "at the first commit that fails",
        "retries, acknowledges nothing: the broker keeps the events",
        "results stop, `R/health` goes on",
        "a commit succeeds",
    ),
    "store_locked": Cause(
        "degraded",
        30,
        "at the first commit that finds the store locked by another program",
        "retries, acknowledges nothing: the broker keeps the events",
        "results stop, `R/health` goes on",
        "a commit succeeds",
    ),
    "store_recovered": Cause(
        "degraded",
        600,
        "at start",
        "damaged store set aside and salvaged, new epoch",
        "new `epoch`, `R/gap` with what was lost",
        "by itself after the holding time",
    ),
    "gap": Cause(
        "degraded",
        60,
        "with the first event after the missing ones, or at a lost session",
        "publishes what is missing",
        "`R/gap`",
        "no new gap for the holding time",
    ),
    "clock_unsynced": Cause(
        "normal",
        60,
        "within a second",
        "serves; order and timers never use the wall clock",
        "`clock` unsynced in each result; the mode stays as it is",
        "the kernel reports a synchronised clock",
    ),
    "rules_serving": Cause(
        "rules",
        10,
        "with the first call that no runtime of the chain can answer",
        "declared rules answer, or the device's last good answer is repeated",
        "`runtime` rules or last_good, quality 64, reason `rules_serving` or `last_good`",
        "a runtime of the chain serves",
    ),
    "model_unusable": Cause(
        "safe",
        10,
        "when neither a runtime nor a rule can answer",
        "stores events, answers null",
        "quality 0, reason `model_unusable`",
        "a usable model is loaded",
    ),
    **{row.code: _pressure(row) for row in LADDER},
    EASING: Cause(
        "degraded",
        0,
        "at once when the last reason of the governor has left and its level has not",
        f"steps back to the full work, one level every {STEP_HOLD_S} s",
        "what the level shows",
        "the level is `full` again",
    ),
    LINGERING: Cause(
        "shedding",
        0,
        "at once when no reason of the governor asks for losses any more and its level still makes them",
        f"steps back to the full work, one level every {STEP_HOLD_S} s",
        "what the level shows",
        "the level makes no losses",
    ),
}

OF_THE_GOVERNOR = frozenset({*(row.code for row in LADDER), EASING, LINGERING})
"""Causes whose measures reach only the pipelines that declare so: each of those says by itself what it lacks."""

Machine = Literal["plant link", "upstream link", "compute", "model", "storage", "clock", "thermal"]

_MACHINE_OF_FACT: Mapping[str, Machine] = {
    "throttle_margin_c": "thermal",
    "critical_margin_c": "thermal",
    "throttled": "thermal",
    "memory_available_share": "compute",
    "memory_some_avg10_percent": "compute",
    "disk_free_share": "storage",
    "disk_free_bytes": "storage",
    "store_room_days": "storage",
    "backlog_age_s": "upstream link",
    "queue_deadline_ratio": "compute",
    "accelerator": "compute",
}

MACHINES: Mapping[str, Machine] = {
    **dict.fromkeys(("broker_away", "publish_denied", "subscribe_denied", "duplicate_client_id", "gap"), "plant link"),
    **dict.fromkeys(
        (
            "upstream_away", "upstream_refused", "upstream_slow", "upstream_rejecting", "receiver_foreign",
            "uplink_failed", "backlog_aged",
        ),
        "upstream link",
    ),
    **dict.fromkeys(("fallback_runtime", "runtime_stuck", "lane_behind", "events_shed", EASING, LINGERING), "compute"),
    **dict.fromkeys(("accelerator_lost", "needs_power_cycle", "accelerator_required", "model_slow"), "compute"),
    **dict.fromkeys(("rules_serving", "model_unusable", "rung_disabled", "larger_model_away"), "model"),
    **dict.fromkeys(("store_full", "store_io", "store_locked", "store_recovered"), "storage"),
    "clock_unsynced": "clock",
    **{row.code: _MACHINE_OF_FACT[row.fact] for row in LADDER},
}  # fmt: skip
"""Which of the small machines each cause belongs to; the mode is the worst that any of them asks for."""

OF_THE_WAY_HOME = frozenset({"upstream_rejecting", "backlog_aged"})
"""Causes that take nothing from a result: it is as good as ever, only the receiver may not get it."""

OF_ONE_PIPELINE = frozenset(
    {
        "fallback_runtime", "runtime_stuck", "lane_behind", "rules_serving", "model_unusable", "accelerator_lost",
        "needs_power_cycle", "rung_disabled", "accelerator_required", "model_slow", "larger_model_away",
    }
)  # fmt: skip
"""Causes whose subject is a pipeline: they say nothing about the results of another one."""
