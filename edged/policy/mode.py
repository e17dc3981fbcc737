"""The mode of the gateway, derived from the reasons that are active. Pure; the table is the documentation.

A reason is entered at once. Once its cause has gone it stays for `hold_s` (hysteresis), so that a flapping cause does
not flap the mode. The mode is the worst one that any present reason asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

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
        "when the model is loaded",
        "serves with the next runtime of the chain",
        "`degraded` true, `runtime` names what computed",
        "a load on the first runtime of the chain",
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
        "when no runtime of the chain can run the model",
        "declared rules answer",
        "`runtime` rules, quality 64, reason `rules_serving`",
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
}


class Reason(NamedTuple):
    """A present reason. `subject`: whose (a pipeline, a filter), or "". `since_ms`: Unix ms, for people."""

    code: str
    subject: str
    since_ms: int
    detail: str
    cleared_mono_ms: int | None = None


class ModeState(NamedTuple):
    """The reasons in order of appearance, and the mode they make."""

    mode: Mode = "normal"
    since_ms: int = 0
    reasons: tuple[Reason, ...] = ()

    @property
    def codes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(reason.code for reason in self.reasons))


OF_THE_WAY_HOME = frozenset({"upstream_rejecting", "backlog_aged"})
"""Causes that take nothing from a result: it is as good as ever, only the receiver may not get it."""

OF_ONE_PIPELINE = frozenset({"fallback_runtime", "runtime_stuck", "lane_behind", "rules_serving", "model_unusable"})
"""Causes whose subject is a pipeline: they say nothing about the results of another one."""


def degrades(reasons: Iterable[Reason], pipeline: str) -> bool:
    """Whether the results of `pipeline` carry less than was configured. Waiting for a link takes nothing from them."""
    return any(
        CAUSES[reason.code].mode not in {"normal", "offline"}
        and reason.code not in OF_THE_WAY_HOME
        and (reason.code not in OF_ONE_PIPELINE or reason.subject == pipeline)
        for reason in reasons
    )


class Raised(NamedTuple):
    """A cause is there (again)."""

    code: str
    subject: str = ""
    detail: str = ""


class Cleared(NamedTuple):
    """A cause has gone; the reason leaves after its holding time."""

    code: str
    subject: str = ""


class Tick(NamedTuple):
    """Time passed."""


Event = Raised | Cleared | Tick


class ReasonEntered(NamedTuple):
    reason: Reason


class ReasonLeft(NamedTuple):
    reason: Reason


class ModeChanged(NamedTuple):
    before: Mode
    after: Mode


Effect = ReasonEntered | ReasonLeft | ModeChanged


def step(state: ModeState, event: Event, *, mono_ms: int, wall_ms: int) -> tuple[ModeState, tuple[Effect, ...]]:
    """One event in, the next state and what to tell the world out. No effects: nothing visible changed.

    Holding times count on `mono_ms`; `wall_ms` only labels what people read. Unknown codes are a `KeyError`: our bug.
    """
    effects: list[Effect] = []
    reasons: list[Reason] = []
    raised = False
    for reason in state.reasons:
        if isinstance(event, Raised) and (reason.code, reason.subject) == (event.code, event.subject):
            raised = True
            reasons.append(reason._replace(detail=event.detail, cleared_mono_ms=None))
        elif isinstance(event, Cleared) and (reason.code, reason.subject) == (event.code, event.subject):
            cleared_ms = mono_ms if reason.cleared_mono_ms is None else reason.cleared_mono_ms
            reasons.append(reason._replace(cleared_mono_ms=cleared_ms))
        elif _held(reason, mono_ms):
            reasons.append(reason)
        else:
            effects.append(ReasonLeft(reason))
    if isinstance(event, Raised) and not raised:
        _ = CAUSES[event.code]
        entered = Reason(event.code, event.subject, wall_ms, event.detail)
        reasons.append(entered)
        effects.append(ReasonEntered(entered))
    mode = derive(reason.code for reason in reasons)
    since_ms = state.since_ms
    if mode != state.mode:
        since_ms = wall_ms
        effects.append(ModeChanged(state.mode, mode))
    return ModeState(mode, since_ms, tuple(reasons)), tuple(effects)


def derive(codes: Iterable[str]) -> Mode:
    """The worst mode that any of these reason codes asks for."""
    return max((CAUSES[code].mode for code in codes), key=MODES.index, default="normal")


def _held(reason: Reason, mono_ms: int) -> bool:
    """Whether the reason is still present: its cause is there, or went less than `hold_s` ago."""
    if reason.cleared_mono_ms is None:
        return True
    return mono_ms - reason.cleared_mono_ms < CAUSES[reason.code].hold_s * 1000
