"""Each kind of mistake: the key it is reported at, what is said about it, and that nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.config.problems import got_text
from tests.unit.config.conftest import VALID, Examine, keys, only, spoil

URL = 'url = "mqtt://127.0.0.1:1883"'
FIELDS = 'fields = ["accel_rms", "motor.temp_c"]'
KIND = 'kind = "classification"\nlabels = ["ok", "bearing"]'
ALARM = 'alarm = { label = "bearing", min_score = 0.8, severity = "high" }'
TOPICS = 'topics = ["plant/+/pump/+"]'
DEVICE = 'device = "{topic[1]}-{topic[3]}"'
CHAIN = 'chain = ["onnxruntime:cpu"]'
MODEL = 'path = "pump.onnx"'
ANOMALY = (KIND, 'kind = "anomaly"\nthreshold = 0.5')


def upstream(text: str) -> tuple[tuple[str, str], ...]:
    """The change that adds [upstream] with these keys."""
    return (("[security]", f"[upstream]\n{text}\n[security]"),)


# (change, key below pipeline[pump] or from the root, a part of the message)
MISTAKES: dict[str, tuple[tuple[tuple[str, str], ...], str, str]] = {
    # types, bounds, words
    "text for a number": ((("window = 32", 'window = "32"'),), "input.window", "not allowed"),
    "number for a text": ((('site = "lyon"', "site = 3"),), "gateway.site", "not allowed"),
    "float for an integer": ((("window = 32", "window = 32.5"),), "input.window", "not allowed"),
    "truth for an integer": ((("window = 32", "window = true"),), "input.window", "not allowed"),
    "below the bound": ((("window = 32", "window = 0"),), "input.window", "not allowed"),
    "above the bound": ((("window = 32", "window = 70000"),), "input.window", "not allowed"),
    "not a number": ((("min_score = 0.8", "min_score = nan"),), "output.alarm[0].min_score", "not allowed"),
    "infinite": ((("min_score = 0.8", "min_score = inf"),), "output.alarm[0].min_score", "not allowed"),
    "unknown word": ((('"high"', '"hihg"'),), "output.alarm[0].severity", "not allowed"),
    "class that is no name": (
        (('id = "gw-01"', 'id = "gw-01"\nhardware_class = 3'),),
        "gateway.hardware_class",
        "not allowed",
    ),
    "metrics on a name": (
        (("[security]", '[status]\nmetrics_listen = "gateway:1"\n[security]'),),
        "status.metrics_listen",
        "loopback",
    ),
    "forbidden character": ((('id = "gw-01"', 'id = "gw/01"'),), "gateway.id", "not allowed"),
    "too long a name": ((('id = "gw-01"', f'id = "{"x" * 65}"'),), "gateway.id", "not allowed"),
    "empty text": ((('state_dir = "state"', 'state_dir = ""'),), "gateway.state_dir", "not allowed"),
    "missing key": ((('site = "lyon"', ""),), "gateway.site", "missing"),
    "table for a list": ((("[[pipeline]]", "[pipeline]"),), "pipeline", "not allowed"),
    "list for a table": ((("[security]", "[[security]]"),), "security", "not allowed"),
    "item of a list": ((('"motor.temp_c"', "7"),), "input.fields[1]", "not allowed"),
    "empty list": (((TOPICS, "topics = []"),), "topics", "not allowed"),
    "date for a number": ((("window = 32", "window = 2026-01-01"),), "input.window", "not allowed"),
    "bad table by field": ((("stride = 8", "scaling = { accel_rms = 3 }"),), "input.scaling.accel_rms", "not allowed"),
    "bad key by field": (
        (("stride = 8", "scaling = { accel_rms = { std = 0 } }"),),
        "input.scaling.accel_rms.std",
        "not allowed",
    ),
    "text as threshold": (
        ((KIND, 'kind = "anomaly"\nthreshold = "x"'), (ALARM, "")),
        "output.threshold",
        "not allowed",
    ),
    "bad threshold table": (
        ((KIND, 'kind = "anomaly"\nthreshold = { calibrate_events = 1 }'), (ALARM, "")),
        "output.threshold.calibrate_events",
        "not allowed",
    ),
    # broker
    "unknown scheme": (((URL, 'url = "mqt://a"'),), "broker.url", "unknown scheme"),
    "no host": (((URL, 'url = "mqtt://:1883"'),), "broker.url", "no usable host"),
    "no port number": (((URL, 'url = "mqtt://a:x"'),), "broker.url", "not an address"),
    "port zero": (((URL, 'url = "mqtt://a:0"'),), "broker.url", "no usable host"),
    "bad IPv6": (((URL, 'url = "mqtt://[::1"'),), "broker.url", "not an address"),
    "path in the url": (((URL, 'url = "mqtt://a/b"'),), "broker.url", "path"),
    "ca without TLS": (((URL, URL + '\nca_file = "ca.pem"'),), "broker.ca_file", "without TLS"),
    "password without user": (((URL, URL + '\npassword_file = "pump.onnx"'),), "broker.password_file", "username"),
    "two passwords": (
        ((URL, URL + '\nusername = "u"\npassword_file = "pump.onnx"\npassword_credential = "p"'),),
        "broker.password_credential",
        "second password",
    ),
    "zero in the client id": (((URL, URL + '\nclient_id = "a\\u0000"'),), "broker.client_id", "zero"),
    # status, limits, results, hardware
    "metrics for everybody": (
        (("[security]", '[status]\nmetrics_listen = "0.0.0.0:9464"\n[security]'),),
        "status.metrics_listen",
        "loopback",
    ),
    "metrics without port": (
        (("[security]", '[status]\nmetrics_listen = "localhost"\n[security]'),),
        "status.metrics_listen",
        "loopback",
    ),
    "long socket": ((("[security]", f'[status]\nsocket = "/{"x" * 120}"\n[security]'),), "status.socket", "too long"),
    "offline before stale": (
        (("[security]", "[limits]\ndevice_stale_s = 700\n[security]"),),
        "limits.device_offline_s",
        "longer",
    ),
    "payload beyond memory": (
        (("[security]", "[limits]\nmax_payload_bytes = 100_000_000\n[security]"),),
        "limits.max_payload_bytes",
        "more than may wait",
    ),
    "sparkplug": ((("[security]", "[results]\nsparkplug = true\n[security]"),), "results.sparkplug", "not built in"),
    "no results": ((("[security]", "[results]\njson = false\n[security]"),), "results.json", "only form"),
    "upstream url": (upstream('url = "ftp://hub"'), "upstream.url", "scheme"),
    "upstream query": (upstream('url = "https://hub/a?b"'), "upstream.url", "query"),
    "upstream space": (upstream('url = "https://hub/a b"'), "upstream.url", "path"),
    "upstream topic": (upstream('url = "mqtt://hub/a"'), "upstream.url", "path"),
    "upstream ca": (upstream('url = "http://hub"\nca_file = "ca.pem"'), "upstream.ca_file", "without TLS"),
    "upstream user": (upstream('url = "https://hub"\nusername = "u"'), "upstream.username", "no effect over HTTP"),
    "token over MQTT": (upstream('url = "mqtts://hub"\ntoken_file = "ca.pem"'), "upstream.token_file", "needs https"),
    "token in the clear": (
        upstream('url = "http://hub"\ntoken_file = "ca.pem"'),
        "upstream.token_file",
        "needs https",
    ),
    "stream twice": (
        upstream('url = "mqtt://hub"\nstreams = ["alarm", "health", "alarm"]'),
        "upstream.streams[2]",
        "twice",
    ),
    "no stream": (upstream('url = "mqtt://hub"\nstreams = []'), "upstream.streams", "not allowed"),
    "unknown stream": (upstream('url = "mqtt://hub"\nstreams = ["results"]'), "upstream.streams[0]", "not allowed"),
    "no window": (upstream('url = "mqtt://hub"\nwindow = 1'), "upstream.window", "not allowed"),
    "missing token": (upstream('url = "https://hub"\ntoken_file = "none"'), "upstream.token_file", "does not exist"),
    "hardware chain": (
        (("[security]", '[hardware]\nchain = ["x cpu"]\n[security]'),),
        "hardware.chain[0]",
        "no runtime on a device",
    ),
    # topics and device
    "inner wildcard": (((TOPICS, 'topics = ["plant/#/pump/+"]'),), "topics[0]", "#"),
    "shared level": (((TOPICS, 'topics = ["a/+/c/d+"]'),), "topics[0]", "+"),
    "empty filter": (((TOPICS, 'topics = ["a/b/c/d", ""]'),), "topics[1]", "not allowed"),
    "zero in a filter": (((TOPICS, 'topics = ["a/b/c/d", "a\\u0000"]'),), "topics[1]", "zero"),
    "shared subscription": (((TOPICS, 'topics = ["$share/g/a/b"]'), (DEVICE, 'device = "a"')), "topics[0]", "shared"),
    "same filter twice": (((TOPICS, 'topics = ["a/b/c/+", "a/b/c/+"]'),), "topics[1]", "twice"),
    "reading ourselves": (((TOPICS, 'topics = ["edged/v1/+/+/result/#"]'),), "topics[0]", "read back"),
    "reading results of all": (((TOPICS, 'topics = ["+/+/+/+/+/+/#"]'),), "topics[0]", "read back"),
    "reading everything": (((TOPICS, 'topics = ["a/b/c/d", "#"]'),), "topics[1]", "read back"),
    "level that is not there": (((DEVICE, 'device = "{topic[4]}"'),), "device", "level 4"),
    "level of the hash": (((TOPICS, 'topics = ["a/b/#"]'), (DEVICE, 'device = "{topic[2]}"')), "device", "level 2"),
    "unknown reference": (((DEVICE, 'device = "{asset}"'),), "device", "{asset}"),
    "stray brace": (((DEVICE, 'device = "{topic[1]"'),), "device", "not a device template"),
    "two levels": (((DEVICE, 'device = "a/b"'),), "device", "not a device template"),
    # input
    "stride beyond the window": ((("stride = 8", "stride = 33"),), "input.stride", "longer than the window"),
    "too large a window": (
        (("window = 32", "window = 65536"), (FIELDS, f"fields = {[f'f{i}' for i in range(16)]}")),
        "input.window",
        "too large",
    ),
    "latest with a window": ((("stride = 8", 'policy = "latest"'),), "input.policy", "skips events"),
    "unit of the arrival time": (
        (("stride = 8", 'ts_source = "arrival"\nts_unit = "ms"'),),
        "input.ts_unit",
        "no effect",
    ),
    "same field twice": (((FIELDS, 'fields = ["a", "a"]'),), "input.fields[1]", "twice"),
    "no path": (((FIELDS, 'fields = ["a..b"]'),), "input.fields[0]", "not a path"),
    "no path to the time": ((("stride = 8", 'ts = ".ts"'),), "input.ts", "not a path"),
    "scaling of an unknown field": (
        (("stride = 8", "scaling = { acel_rms = { scale = 2.0 } }"),),
        "input.scaling.acel_rms",
        "not in input.fields",
    ),
    "two forms of scaling": (
        (("stride = 8", "scaling = { accel_rms = { scale = 2.0, mean = 1.0 } }"),),
        "input.scaling.accel_rms",
        "two forms",
    ),
    "no form of scaling": ((("stride = 8", "scaling = { accel_rms = {} }"),), "input.scaling.accel_rms", "empty"),
    "scaling by zero": (
        (("stride = 8", "scaling = { accel_rms = { scale = 0 } }"),),
        "input.scaling.accel_rms.scale",
        "equal",
    ),
    "empty constraint": ((("stride = 8", "constraints = { accel_rms = {} }"),), "input.constraints.accel_rms", "empty"),
    "impossible constraint": (
        (("stride = 8", "constraints = { accel_rms = { min = 2, max = 1 } }"),),
        "input.constraints.accel_rms.min",
        "above max",
    ),
    "feature twice": ((("stride = 8", 'features = ["rms", "rms"]'),), "input.features[1]", "twice"),
    "fft without bins": ((("stride = 8", 'features = ["fft"]'),), "input.fft_bins", "goes together"),
    "bins without fft": ((("stride = 8", "fft_bins = 8"),), "input.fft_bins", "goes together"),
    "layout": ((("stride = 8", 'layout = "fields,batch"'),), "input.layout", "begin with batch"),
    # model
    "no model": (((MODEL, ""),), "model", "names no model"),
    "two models": (((MODEL, MODEL + '\nslot = "pump"'),), "model.path", "contradicts slot"),
    "unsigned model": ((("allow_unsigned = true", "allow_unsigned = false"),), "model.path", "unsigned"),
    "version of a slot": (((MODEL, 'slot = "pump"\nversion = "2"'),), "model.version", "unsigned models only"),
    "runtime twice": (((CHAIN, 'chain = ["onnxruntime:cpu", "onnxruntime:cpu"]'),), "model.chain[1]", "twice"),
    "rules first": (((CHAIN, 'chain = ["rules", "onnxruntime:cpu"]'),), "model.chain[0]", "ends the chain"),
    "unknown runtime": (((CHAIN, 'chain = ["openvina:cpu"]'),), "model.chain[0]", "no known runtime"),
    "no runtime at all": (((CHAIN, 'chain = ["?:cpu"]'),), "model.chain[0]", "no runtime on a device"),
    "rules outside the chain": (
        ((CHAIN, CHAIN + '\nrules = [{ label = "hot", field = "accel_rms", above = 80 }]'),),
        "model.rules",
        "never asked",
    ),
    "rule without threshold": (
        ((CHAIN, 'chain = ["openvino:cpu", "rules"]\nrules = [{ label = "hot", field = "accel_rms" }]'),),
        "model.rules[0]",
        "no threshold",
    ),
    "rule about nothing": (
        ((CHAIN, 'chain = ["openvino:cpu", "rules"]\nrules = [{ label = "hot", field = "nix", above = 80 }]'),),
        "model.rules[0].field",
        "input.fields",
    ),
    "accelerator nowhere": (
        ((CHAIN, CHAIN + "\nrequire_accelerator = true"),),
        "model.require_accelerator",
        "nobody to answer",
    ),
    "another provider on the processor": (
        ((CHAIN, 'chain = ["onnxruntime:openvino-cpu", "onnxruntime:cpu"]\nrequire_accelerator = true'),),
        "model.require_accelerator",
        "nobody to answer",
    ),
    "memory instead of an accelerator": (
        ((CHAIN, 'chain = ["coral:usb"]\nrequire_accelerator = true\nlast_good_s = 5'),),
        "model.last_good_s",
        "never answers",
    ),
    "no rate": (
        (
            (CHAIN, CHAIN + '\nrates_hz = { "onnxruntime:cpu" = 0 }'),
            ("stride = 8", 'policy = "latest"'),
            ("window = 32", ""),
        ),
        "model.rates_hz.onnxruntime:cpu",
        "is no rate",
    ),
    "rate of nobody": (
        (
            (CHAIN, CHAIN + '\nrates_hz = { "openvino:cpu" = 5 }'),
            ("stride = 8", 'policy = "latest"'),
            ("window = 32", ""),
        ),
        "model.rates_hz.openvino:cpu",
        "is not in the chain",
    ),
    "rate for a queue": (
        ((CHAIN, CHAIN + '\nrates_hz = { "onnxruntime:cpu" = 5 }'),),
        "model.rates_hz",
        "may be skipped",
    ),
    "device it has not": (((CHAIN, 'chain = ["litert:gpu"]'),), "model.chain[0]", "no device"),
    "runtime without device": (((CHAIN, 'chain = ["onnxruntime"]'),), "model.chain[0]", "no device"),
    "device number": (((CHAIN, 'chain = ["coral:usb:x"]'),), "model.chain[0]", "no device"),
    "input of an unknown field": (
        ((CHAIN, 'inputs = { a = ["acel_rms"] }'),),
        "model.inputs.a",
        "not in input.fields",
    ),
    "input without fields": (((CHAIN, "inputs = { a = [] }"),), "model.inputs.a", "no fields"),
    "codec to come": (((TOPICS, TOPICS + '\ncodec = "senml"'),), "codec", "not built in"),
    "latest answered later": (
        (("window = 32\nstride = 8", 'policy = "latest"'), (CHAIN, 'commit = "after"')),
        "model.commit",
        "contradicts",
    ),
    # output
    "threshold for classes": (((KIND, KIND + "\nthreshold = 0.0"),), "output.threshold", "no meaning"),
    "softmax for anomalies": ((ANOMALY, (ALARM, "softmax = true")), "output.softmax", "no meaning"),
    "names for classes": (((KIND, KIND + '\nnames = ["a"]'),), "output.names", "no meaning"),
    "labels for numbers": (((KIND, 'kind = "regression"\nlabels = ["a"]'), (ALARM, "")), "output.labels", "no meaning"),
    "alarm for numbers": (((KIND, 'kind = "regression"'), (ALARM, "alarm = {}")), "output.alarm", "no meaning"),
    "label twice": (((KIND, 'kind = "classification"\nlabels = ["bearing", "bearing"]'),), "output.labels[1]", "twice"),
    "alarm on an unknown label": ((('label = "bearing"', 'label = "bering"'),), "output.alarm[0].label", "not one of"),
    "alarm without label": ((('label = "bearing", ', ""),), "output.alarm[0].label", "missing"),
    "alarm code from a label": (
        ((KIND, KIND.replace("bearing", "bearing wear")), ('label = "bearing"', 'label = "bearing wear"')),
        "output.alarm[0].code",
        "cannot be taken",
    ),
    "same alarm code": (
        ((ALARM, 'alarm = [{ label = "ok", code = "x" }, { label = "bearing", code = "x" }]'),),
        "output.alarm[1].code",
        "used twice",
    ),
    "label of an anomaly": ((ANOMALY,), "output.alarm[0].label", "no meaning"),
    "classes without labels": (((KIND, 'kind = "classification"'), (ALARM, "")), "output.labels", "missing"),
    "a rollout that goes back": (
        (("[security]", "[hardware.rollout]\nstages = [0.5, 0.1, 1.0]\n[security]"),),
        "hardware.rollout.stages",
        "do not rise",
    ),
    "a rollout that leaves gateways behind": (
        (("[security]", "[hardware.rollout]\nstages = [0.5, 0.9]\n[security]"),),
        "hardware.rollout.stages",
        "leave gateways behind",
    ),
    "smaller without a model": (
        (("[pipeline.output]", "[pipeline.model.smaller]\n[pipeline.output]"),),
        "model.smaller",
        "names no model",
    ),
    "smaller for a threshold that is learnt": (
        (
            (KIND, 'kind = "anomaly"\nthreshold = { calibrate_events = 100 }'),
            (ALARM, ""),
            ("[pipeline.output]", '[pipeline.model.smaller]\npath = "small.onnx"\n[pipeline.output]'),
        ),
        "model.smaller",
        "another score",
    ),
    "anomaly without threshold": (((KIND, 'kind = "anomaly"'), (ALARM, "")), "output.threshold", "missing"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_reported_once_at_its_key(look: Examine, tmp_path: Path, mistake: str) -> None:
    changes, key, message = MISTAKES[mistake]
    problem = only(look(spoil(*changes), files={"ca.pem": b"x"}, need_models=False))
    from_root = key.split(".", 1)[0] in {"gateway", "broker", "status", "limits", "results", "upstream", "hardware"}
    expected = key if from_root or key in {"pipeline", "security"} else f"pipeline[pump].{key}"
    assert problem.key == expected
    assert message in problem.message
    assert problem.file == str(tmp_path / "edged.toml")


def test_a_label_without_labels_says_that_they_are_needed(look: Examine) -> None:
    report = look(spoil((KIND, 'kind = "classification"')))
    assert keys(report) == ["pipeline[pump].output.alarm[0].label", "pipeline[pump].output.labels"]


def test_an_anomaly_alarm_needs_to_know_when(look: Examine) -> None:
    text = spoil((KIND, 'kind = "anomaly"'), (ALARM, "alarm = {}"), (MODEL, 'slot = "pump"'))
    assert keys(look(text, need_models=False)) == ["pipeline[pump].output.alarm[0].min_score"]


@pytest.mark.parametrize(("name", "other"), [("cert_file", "key_file"), ("key_file", "cert_file")])
def test_certificate_and_key_come_together(look: Examine, name: str, other: str) -> None:
    report = look(spoil((URL, f'url = "mqtts://a"\n{name} = "x.pem"')), files={"x.pem": b""})
    assert keys(report) == [f"broker.{name}"]
    assert other in report.problems[0].message


def test_what_is_right_is_no_problem(look: Examine) -> None:
    text = spoil(
        (URL, 'url = "mqtts://[::1]:8884"'),
        (TOPICS, 'topics = ["plant/+/pump/#", "edged/v2/x", "+/+/pump", "+/+/+/+/temp", "$SYS/a/b/c"]'),
        (DEVICE, 'device = "a-{topic[0]}-{topic[-1]}-{payload.asset.id}"'),
        (
            "stride = 8",
            'layout = "batch,fields,window"\nfeatures = ["rms", "fft"]\nfft_bins = 4\nts_source = "arrival"',
        ),
        (CHAIN, 'chain = ["tensorrt:dla:1", "coral:usb", "openvino:npu", "rules"]\ninputs = { a = ["accel_rms"] }'),
        ("[security]", '[status]\nmetrics_listen = "[::1]:9464"\n[security]'),
    )
    report = look(text)
    assert report.problems == ()
    config = report.config
    assert config is not None
    assert (config.broker.host, config.broker.port, config.broker.tls) == ("::1", 8884, True)


def test_default_ports_follow_the_scheme(look: Examine) -> None:
    plain = look(spoil((URL, 'url = "mqtt://broker"'))).config
    secret = look(spoil((URL, 'url = "mqtts://broker"'))).config
    assert plain is not None
    assert secret is not None
    assert (plain.broker.port, secret.broker.port) == (1883, 8883)


def test_an_unknown_key_names_the_nearest_one(look: Examine) -> None:
    problem = only(look(spoil(("stride = 8", "strid = 8"))))
    assert (problem.key, problem.nearest, problem.got) == ("pipeline[pump].input.strid", "stride", "8")
    assert "window" in problem.allowed


def test_a_key_in_the_wrong_table_names_the_right_one(look: Examine) -> None:
    problem = only(look(spoil((TOPICS, TOPICS + "\ndeadline_ms = 20"))))
    assert problem.nearest == "pipeline.model.deadline_ms"
    assert "belongs to" in problem.cure


def test_a_key_like_no_other_is_to_be_removed(look: Examine) -> None:
    problem = only(look("xyzzy = 1\n" + VALID))
    assert (problem.key, problem.nearest, problem.cure) == ("xyzzy", "", "remove it")


def test_a_misspelt_key_is_not_reported_through_its_consequences(look: Examine) -> None:
    assert keys(look(spoil(("window = 32", "windw = 32")))) == ["pipeline[pump].input.windw"]


def test_secrets_are_refused_and_never_repeated(look: Examine) -> None:
    text = spoil((URL, 'url = "mqtt://user:hunter2@a"\npassword = "hunter2"\napi_token = "hunter2"'))
    report = look(text)
    assert sorted(keys(report)) == ["broker.api_token", "broker.password", "broker.url"]
    assert "hunter2" not in "".join(map(str, report.problems))
    assert next(problem.nearest for problem in report.problems if problem.key == "broker.password") == "password_file"


def test_numbers_and_truths_in_quotes_are_explained(look: Examine) -> None:
    report = look(spoil(("window = 32", 'window = "32"'), ("allow_unsigned = true", 'allow_unsigned = "true"')))
    assert {problem.cure for problem in report.problems} == {"write it without quotes"}


def test_single_brackets_are_explained(look: Examine) -> None:
    assert "[[pipeline]]" in only(look(spoil(("[[pipeline]]", "[pipeline]")))).cure


def test_a_problem_has_allowed_values_unit_and_reason(look: Examine) -> None:
    problem = only(look(spoil(("window = 32", "window = 0"))))
    assert (problem.got, problem.unit) == ("0", "events")
    assert problem.allowed == "integer from 1 to 65536 events (a window is kept in memory for each device)"
    assert str(problem).splitlines()[1:] == ["    got      0", f"    allowed  {problem.allowed}"]


def test_problems_everywhere_are_reported_at_once(look: Examine) -> None:
    report = look(
        spoil(
            ('site = "lyon"', ""),
            (URL, 'url = "mqt://x"\nkeep_alive = 3'),
            (TOPICS, 'topics = ["#"]'),
            ("stride = 8", "stride = 80\nlateness = 1"),
            (CHAIN, 'chain = ["openvina:cpu"]\ndeadline_ms = 0'),
            ('"high"', '"hihg"'),
            ('label = "bearing"', 'label = "bering"'),
        )
        + "\n[storee]\n"
    )
    assert sorted(keys(report)) == [
        "broker.keep_alive",
        "broker.url",
        "gateway.site",
        "pipeline[pump].input.lateness",
        "pipeline[pump].input.stride",
        "pipeline[pump].model.chain[0]",
        "pipeline[pump].model.deadline_ms",
        "pipeline[pump].output.alarm[0].severity",
        "pipeline[pump].topics[0]",
        "storee",
    ]


def test_a_nameless_pipeline_is_told_by_its_number_in_its_file(look: Examine) -> None:
    part = '[[pipeline]]\nname = "a"\n[[pipeline]]\nwindow = 3\n'
    report = look(also={"10.toml": part})
    assert "pipeline[1].name" in keys(report)
    assert "pipeline[a].topics" in keys(report)


def test_pipelines_that_are_no_tables_are_reported(look: Examine) -> None:
    text = "pipeline = [3]\n" + VALID[: VALID.index("[[pipeline]]")]
    assert keys(look(text)) == ["pipeline[0]"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        ('a"\n', '"a\\"\\u000a"'),
        ({}, "an empty table"),
        ({"a": 1, "b": 2}, "a table with a, b"),
        ([1, "x"], '[1, "x"]'),
        (list(range(9)), "[0, 1, 2, 3, 4, 5, 6, 7, …]"),
        (10**100, "an integer of more than 77 digits"),
        ("x" * 200, '"' + "x" * 158 + "…"),
    ],
)
def test_a_value_is_shown_as_toml_and_shortened(value: object, text: str) -> None:
    assert got_text("key", value) == text
