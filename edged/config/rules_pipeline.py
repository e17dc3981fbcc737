"""What the types cannot say about a pipeline: which settings go together. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence

from edged.config.keys import NAME_PATTERN
from edged.config.pipeline import Alarm, Calibration, Constraint, Input, ModelSource, Output, Pipeline, Scaling, Smaller
from edged.config.problems import Finding, Path
from edged.config.rules_links import RULES, check_chain
from edged.config.rules_patterns import check_cascade, check_codec, check_graded
from edged.config.settings import Config, Security

CODECS_HERE = ("json", "image")  # what this version decodes; the others are reserved names
MAX_WINDOW_VALUES = 1_000_000  # per device: 8 MB of numbers, a window of 65,536 events with 15 fields

_ESCAPED = re.compile(r'[\x00-\x1f"\\]')
_LABELLED = ("classification", "detection")


def check_input(source: Input) -> Iterator[Finding]:
    """Fields, windows, features and tables by field fit together."""
    yield from _check_paths(source)
    if source.stride > source.window:
        yield Finding(
            ("stride",),
            "is longer than the window, so events would be skipped unseen",
            source.stride,
            allowed=f"integer from 1 to {source.window} (the window) events",
            unit="events",
            cure="lower stride, or raise window",
            uses=("window",),
        )
    if source.window * len(source.fields) > MAX_WINDOW_VALUES:
        got = source.window * len(source.fields)
        allowed = f"window × fields up to {MAX_WINDOW_VALUES} values per device"
        yield Finding(("window",), "makes windows too large", got, allowed=allowed, unit="values")
    if source.policy == "latest" and source.window > 1:
        cure = 'use policy = "queue", or window = 1'
        yield Finding(("policy",), "skips events, which a window must not", source.policy, cure=cure, uses=("window",))
    if source.ts_source == "arrival" and source.ts_unit is not None:
        yield Finding(
            ("ts_unit",),
            'has no effect with ts_source = "arrival"',
            source.ts_unit,
            cure="remove one",
            uses=("ts_source",),
        )
    yield from _check_features(source)
    if source.layout is not None and (fault := layout_fault(source.layout, source.window)):
        allowed = "auto, axes such as batch,window,fields, or a reshape such as batch,1,28,28"
        yield Finding(("layout",), fault, source.layout, allowed=allowed, uses=("window",))
    for name, scaling in source.scaling.items():
        yield from (finding.below("scaling", name) for finding in _check_scaling(scaling))
    for name, constraint in source.constraints.items():
        yield from (finding.below("constraints", name) for finding in _check_constraint(constraint))


def _check_paths(source: Input) -> Iterator[Finding]:
    for index, path in enumerate(source.fields):
        if path in source.fields[:index]:
            yield Finding(("fields", index), "stands there twice", path, cure="remove one")
    named: list[tuple[Path, str]] = [(("fields", index), path) for index, path in enumerate(source.fields)]
    named += [(("ts",), source.ts), (("seq",), source.seq), (("boot",), source.boot)]
    for where, path in named:
        if not is_path(path):
            allowed = 'names joined by dots, such as motor.temp_c, without \\, " and control characters'
            yield Finding(where, "is not a path", path, allowed=allowed)
    for table in ("scaling", "constraints"):
        yield from (
            finding.below(table) for finding in _check_known(getattr(source, table), source.fields, "input.fields")
        )


def is_path(text: str) -> bool:
    """Names joined by dots. Spaces inside a name are real ("Volume Flow"), around it they are a slip.

    What JSON would have to escape cannot be part of a name: the decoder does not take it.
    """
    return not _ESCAPED.search(text) and all(name != "" and name == name.strip() for name in text.split("."))


def _check_known(names: Iterable[str], known: Sequence[str], what: str) -> Iterator[Finding]:
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            shown = ", ".join(known[:8]) + (", …" if len(known) > 8 else "")
            yield Finding(
                (name,), f"is not in {what}", name, allowed=f"one of {shown}", nearest=near[0] if near else ""
            )


def _check_features(source: Input) -> Iterator[Finding]:
    for index, feature in enumerate(source.features):
        if feature in source.features[:index]:
            yield Finding(("features", index), "stands there twice", feature, cure="remove one")
    if ("fft" in source.features) != (source.fft_bins is not None):
        yield Finding(
            ("fft_bins",),
            'goes together with the feature "fft"',
            source.fft_bins if source.fft_bins is not None else "nothing",
            cure='give both, features = ["fft"] and fft_bins, or neither',
            uses=("features",),
        )


def layout_fault(layout: str, window: int) -> str:
    """Why `layout` describes no tensor; "" when it does."""
    if layout == "auto":
        return ""
    first, *axes = (axis.strip() for axis in layout.split(","))
    names = [axis for axis in axes if not (axis.isascii() and axis.isdigit())]
    sizes = [int(axis) for axis in axes if axis not in names]
    if first != "batch" or not axes:
        return "does not begin with batch, followed by other axes"
    if len(axes) > 8 or any(not 1 <= size <= 1_000_000 for size in sizes):
        return "has too many or impossible axes"
    if not names:
        return ""  # a reshape: its product is compared with the model when that is loaded
    if any(name not in {"window", "fields"} or names.count(name) > 1 for name in names):
        return "has axes other than batch, window, fields and 1, or one of them twice"
    if any(size != 1 for size in sizes):
        return "mixes names with sizes other than 1"
    if "fields" not in names:
        return "has no axis for the fields"
    if "window" not in names and window > 1:
        return f"has no axis for the window of {window} events"
    return ""


def _check_scaling(scaling: Scaling) -> Iterator[Finding]:
    linear = scaling.scale is not None or scaling.offset is not None
    if linear == scaling.standardised:
        allowed = "{ scale, offset } or { mean, std }"
        yield Finding((), "mixes two forms" if linear else "is empty", allowed=allowed, cure="use one of the two forms")
    if scaling.scale == 0:
        yield Finding(("scale",), "makes every value equal", 0, allowed="a number other than 0")


def _check_constraint(constraint: Constraint) -> Iterator[Finding]:
    low, high = constraint.min, constraint.max
    if low is None and high is None:
        yield Finding((), "is empty", allowed="{ min, max }, one of them or both")
    if low is not None and high is not None and low > high:
        yield Finding(("min",), "is above max, so every event would be refused", low, allowed=f"up to {high}")


def check_model(model: ModelSource, security: Security | None) -> Iterator[Finding]:
    """One source, allowed by [security], on runtimes that exist."""
    yield from _check_source(model, security)
    if model.slot is not None and security is not None and not security.allow_unsigned:
        message = "is not served: this version verifies no signatures, so its answers have quality 0"
        cure = "write [security] allow_unsigned = true when you trust the files in the slot"
        yield Finding(("slot",), message, model.slot, cure=cure, note=True)
    if model.slot is not None and model.version is not None:
        cure = "remove it: the signed manifest says the version"
        yield Finding(("version",), "belongs to unsigned models only", model.version, cure=cure)
    if model.smaller is not None:
        yield from (finding.below("smaller") for finding in _check_source(model.smaller, security))
    if model.cascade is not None:
        yield from (finding.below("cascade") for finding in check_cascade(model.cascade, security))
    yield from check_chain(model.chain)
    yield from _check_fallback(model)
    for name, fields in model.inputs.items():
        if not fields:
            yield Finding(("inputs", name), "has no fields", (), allowed="a list of input.fields, at least 1")


def _check_source(model: ModelSource | Smaller, security: Security | None) -> Iterator[Finding]:
    """A slot or a file, and a file only where [security] allows it."""
    if (model.path is None) == (model.slot is None):
        yield Finding(
            () if model.path is None else ("path",),
            "names no model" if model.path is None else "contradicts slot",
            allowed="either slot or path",
            cure='slot = "NAME" for a signed model, path = "FILE" for an unsigned one',
            uses=("path", "slot"),
        )
    elif model.path is not None and security is not None and not security.allow_unsigned:
        cure = "write [security] allow_unsigned = true, or use a slot"
        yield Finding(("path",), "is an unsigned model, which [security] refuses", model.path, cure=cure)


def _check_fallback(model: ModelSource) -> Iterator[Finding]:
    """What answers when runtimes fail: rules, rates and the demand for an accelerator go together."""
    if RULES in model.chain and not model.rules:
        message = "names rules, but none are declared: without a usable model answers have quality 0"
        cure = "add [[pipeline.model.rules]] with label, field and above or below"
        yield Finding(("chain",), message, model.chain, cure=cure, uses=("rules",), note=True)
    if model.rules and model.chain and RULES not in model.chain:
        cure = f'write "{RULES}" last in the chain'
        yield Finding(("rules",), "are never asked: the chain does not end with rules", cure=cure, uses=("chain",))
    for index, rule in enumerate(model.rules):
        if rule.above is None and rule.below is None:
            yield Finding(("rules", index), "has no threshold", allowed="above, below, or both")
    if model.require_accelerator:
        devices = [entry.partition(":")[2] or "cpu" for entry in model.chain]  # `rules` has none
        if devices and all(device.endswith("cpu") for device in devices):
            cure = "name an accelerator in chain, or remove it"
            yield Finding(("require_accelerator",), "leaves nobody to answer", True, cure=cure, uses=("chain",))
        for key in ("rules", "last_good_s"):
            if getattr(model, key):
                yield Finding((key,), "never answers: require_accelerator forbids it", cure="remove one of the two")
    for rung, rate_hz in model.rates_hz.items():
        if rate_hz <= 0:
            yield Finding(("rates_hz", rung), "is no rate", rate_hz, allowed="calls per second above 0")
        if model.chain and rung not in model.chain:
            near = difflib.get_close_matches(rung, model.chain, n=1)
            nearest = near[0] if near else ""
            yield Finding(("rates_hz", rung), "is not in the chain", rung, nearest=nearest, uses=("chain",))


def check_output(output: Output) -> Iterator[Finding]:
    """Labels, names, threshold and alarms belong to the kind."""
    kind = output.kind
    yield from _only_for(kind, "labels", output.labels, _LABELLED)
    yield from _only_for(kind, "names", output.names, ("regression",))
    yield from _only_for(kind, "threshold", output.threshold, ("anomaly",))
    yield from _only_for(kind, "softmax", output.softmax, ("classification",))
    yield from _only_for(kind, "alarm", output.alarm, ("classification", "anomaly"))
    for key, words in (("labels", output.labels), ("names", output.names)):
        for index, word in enumerate(words):
            if not word or word in words[:index]:
                yield Finding((key, index), "is empty or stands there twice", word, cure="give each its own name")
    codes: list[str] = []
    for index, alarm in enumerate(output.alarm):
        findings = _check_alarm(alarm, output)
        yield from (finding.below("alarm", index) for finding in findings)
        if alarm.effective_code in codes:
            cure = "give each alarm of a pipeline its own code"
            yield Finding(("alarm", index, "code"), "is used twice", alarm.effective_code, cure=cure)
        codes.append(alarm.effective_code)


def _only_for(kind: str, key: str, value: object, kinds: Sequence[str]) -> Iterator[Finding]:
    if value is not None and value is not False and value != () and kind not in kinds:
        message = f"has no meaning for kind {kind}"
        shown = value if not isinstance(value, Calibration) and key != "alarm" else {key: ...}
        yield Finding((key,), message, shown, allowed=f"with kind {' or '.join(kinds)} only", cure="remove it")


def _check_alarm(alarm: Alarm, output: Output) -> Iterator[Finding]:
    if output.kind == "classification":
        if alarm.label is None:
            yield Finding(("label",), "is missing", allowed=f"one of {', '.join(output.labels) or 'output.labels'}")
        elif not output.labels:
            cure = "add output.labels: the names of the classes in the order of the scores"
            yield Finding(("label",), "needs output.labels", alarm.label, cure=cure, uses=("labels",))
        elif alarm.label not in output.labels:
            near = difflib.get_close_matches(alarm.label, output.labels, n=1)
            allowed = f"one of {', '.join(output.labels[:16])}"
            nearest = near[0] if near else ""
            yield Finding(
                ("label",),
                "is not one of output.labels",
                alarm.label,
                allowed=allowed,
                nearest=nearest,
                uses=("labels",),
            )
    elif alarm.label is not None and output.kind == "anomaly":
        yield Finding(("label",), "has no meaning for kind anomaly", alarm.label, cure="use min_score or the threshold")
    if output.kind == "anomaly" and alarm.min_score is None and output.threshold is None:
        cure = "add output.threshold, or min_score here"
        yield Finding(
            ("min_score",), "or output.threshold is needed to know when to alarm", cure=cure, uses=("threshold",)
        )
    if not re.fullmatch(NAME_PATTERN, alarm.effective_code):
        cure = 'add code = "..." : the label cannot be a topic level'
        yield Finding(("code",), "cannot be taken from the label", alarm.label, allowed=NAME_PATTERN, cure=cure)


def check_pipeline(pipeline: Pipeline) -> Iterator[Finding]:
    """What spans several tables of one pipeline."""
    if pipeline.codec not in CODECS_HERE:
        allowed = " or ".join(CODECS_HERE) + " in this version"
        yield Finding(("codec",), "is reserved, but not built in yet", pipeline.codec, allowed=allowed)
    yield from check_codec(pipeline)
    yield from check_graded(pipeline)
    fields = pipeline.input.fields
    for name, wanted in pipeline.model.inputs.items():
        findings = _check_known(wanted, fields, "input.fields")
        yield from (finding._replace(path=("model", "inputs", name)) for finding in findings)
    for index, rule in enumerate(pipeline.model.rules):
        findings = _check_known((rule.field,), fields, "input.fields")
        yield from (finding._replace(path=("model", "rules", index, "field")) for finding in findings)
    if pipeline.model.rates_hz and pipeline.input.policy != "latest":
        cure = 'write input.policy = "latest", or remove it'
        yield Finding(("model", "rates_hz"), "needs inputs that may be skipped", cure=cure)
    if pipeline.input.policy == "latest" and pipeline.model.commit == "after":
        cure = 'remove commit = "after": frames of policy "latest" are not stored'
        yield Finding(("model", "commit"), 'contradicts policy = "latest"', pipeline.model.commit, cure=cure)
    output = pipeline.output
    if pipeline.model.smaller is not None and isinstance(output.threshold, Calibration):
        cure = "write threshold as a number that holds for both, or remove smaller"
        message = "has another score than the model that the threshold is learnt from"
        yield Finding(("model", "smaller"), message, cure=cure)
    if pipeline.model.path is not None:  # a signed model brings labels and thresholds in its manifest
        if output.kind == "classification" and not output.labels:
            cure = 'add labels = ["...", "..."] in the order of the scores'
            yield Finding(("output", "labels"), "is missing", allowed="the names of the classes", cure=cure)
        if output.kind == "anomaly" and output.threshold is None:
            cure = "add threshold = 0.5 or threshold = { calibrate_events = 500 }"
            yield Finding(("output", "threshold"), "is missing", allowed="a score or a table", cure=cure)


def check_windows(config: Config) -> Iterator[Finding]:
    """A note when the windows of all devices, full, would take more memory than the hardware class has for them."""
    values = sum(pipeline.input.window * len(pipeline.input.fields) for pipeline in config.pipeline)
    needed = 8 * values * config.limits.max_devices
    limit = config.hardware.limits.memory_bytes
    if needed > limit:
        message = f"allows windows of {needed} bytes together, more than hardware.limits.memory_bytes, {limit} bytes"
        cure = "lower it to the number of devices there are"
        yield Finding(("limits", "max_devices"), message, config.limits.max_devices, cure=cure, note=True)
