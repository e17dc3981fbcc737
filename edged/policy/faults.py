"""What every error code of a runtime means for the chain: how far it reaches, and what is done. Pure; the table rules.

`docs/reference/runtime-errors.md` is made from this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

Scope = Literal["request", "model", "device", "worker", "runtime"]
"""How far the fault reaches: this input, this model on this device, all models on it, their process, all devices."""

Action = Literal["refuse", "retry", "next", "restart", "rebuild", "disable"]
"""refuse: the input is answered with the error, nothing else changes. retry: once on the same rung, then the next one.
next: the next rung answers, this one is tried again after a pause. restart: the same, after its process was ended.
rebuild: its engine is made again, once; the next rung answers meanwhile. disable: this rung is out until the model,
the runtime or the configuration changes."""


class Fault(NamedTuple):
    """One row. `alarm`: an operator has to do something."""

    scope: Scope
    action: Action
    alarm: bool
    meaning: str


FAULTS: Mapping[str, Fault] = {
    # of a call
    "invalid_input": Fault("request", "refuse", False, "the input does not fit the model"),
    "bad_image": Fault("request", "refuse", False, "the frame cannot be decoded; no rung was asked"),
    "infer_failed": Fault("request", "retry", False, "the call failed for a reason that the library does not tell"),
    "out_of_memory": Fault("worker", "restart", True, "no memory for this call or this model"),
    "infer_timeout": Fault("worker", "restart", False, "no answer before the deadline: the process is ended"),
    "worker_crashed": Fault("worker", "restart", False, "the process of the device has ended by itself"),
    "worker_gone": Fault("worker", "next", False, "the process of the device was ended because of another model"),
    "device_busy": Fault("request", "next", False, "others held the device until the deadline; nothing was ended"),
    "device_lost": Fault("device", "restart", True, "the device has gone: unplugged, reset, or its driver gave up"),
    "not_finite": Fault("model", "disable", True, "NaN or infinity for a plain input"),
    "runtime_stuck": Fault("device", "restart", True, "calls never returned: only a restart, or a power cycle, helps"),
    "model_unusable": Fault("model", "next", True, "no rung of the chain can answer"),
    "accelerator_required": Fault("model", "next", True, "only the processor could answer, and must not"),
    "upstream_timeout": Fault("device", "next", False, "the upstream did not answer in time"),
    "upstream_away": Fault("device", "next", False, "there is no line to the upstream"),
    "upstream_refused": Fault("device", "next", True, "the upstream does not serve this, or answers with nonsense"),
    "upstream_busy": Fault("request", "next", False, "the line's share for questions is used up"),
    "closed": Fault("model", "next", False, "the model was closed"),
    # of loading
    "load_timeout": Fault("worker", "restart", False, "loading took longer than allowed: the process is ended"),
    "runtime_unknown": Fault("runtime", "disable", True, "no runtime has this name"),
    "runtime_unavailable": Fault("runtime", "disable", True, "its package or its system library is missing or broken"),
    "device_unavailable": Fault("device", "next", False, "the device is absent, in use, or not permitted"),
    "placement_rejected": Fault("model", "disable", True, "a part of the model would silently compute elsewhere"),
    "parity_failed": Fault("model", "disable", True, "it answers otherwise than the rest of the chain"),
    "golden_mismatch": Fault("model", "disable", True, "it answers otherwise than was tested"),
    "bad_golden": Fault("model", "disable", True, "the golden vectors cannot be read"),
    "not_repeatable": Fault("model", "disable", True, "two answers for one input"),
    "warmup_failed": Fault("model", "next", False, "it was loaded and does not answer"),
    "prepare_failed": Fault("model", "next", True, "its engine could not be made"),
    "engine_stale": Fault("model", "rebuild", False, "its engine was made for another device, driver or version"),
    "no_memory": Fault("device", "next", True, "too little free memory to load it safely"),
    "needs_power_cycle": Fault("device", "next", True, "the device did not come back after the allowed restarts"),
    "unsupported": Fault("model", "disable", True, "a whole model that this runtime cannot run"),
    "incompatible": Fault("model", "disable", True, "not a format, or not shapes, that this runtime takes"),
    "corrupt": Fault("model", "disable", True, "the bytes are damaged"),
    "crashes": Fault("model", "disable", True, "a process that loaded it for a trial has ended"),
    "load_failed": Fault("model", "next", True, "loading failed for a reason that the runtime does not tell"),
    "io": Fault("device", "next", True, "the model file cannot be read"),
}

UNKNOWN = Fault("model", "next", True, "a code that the runtime made up")


def fault_of(code: str) -> Fault:
    """The row of `code`. Codes of plug-ins that are not in the table move the chain on and alarm."""
    return FAULTS.get(code, UNKNOWN)
