"""Writes the reference pages that are made from code: `python -m tests.contract.pages docs/reference`.

They stand here and not in the package because they show the daemon at work: its metrics are those that it really has.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import msgspec
from prometheus_client.core import Metric

from edged.cli.main import VERBS, edged
from edged.ops.host import HostHealth
from edged.uplink.lines import Status
from tests.contract.app_rig import running
from tests.contract.promises import (
    PLANT,
    UPSTREAM,
    Json,
    asyncapi,
    channels,
    payload_schema,
    records,
    resolve,
    schemas,
)

MADE = "<!-- Written by `make docs` (tests/contract/pages.py); change the source, not this page. -->"
WIDTH = 100
Row = tuple[str, ...]


def pages() -> dict[str, str]:
    """Every page by file name. Starts the daemon in this process, without a broker, to look at its metrics."""
    return {"topics.md": topics_page(), "cli.md": cli_page(), "metrics.md": asyncio.run(metrics_page())}


# --- topics.md --------------------------------------------------------------------------------------------------

_TOPICS = f"""# Topics and payloads

{MADE}

`R` stands for `edged/v1/{{site}}/{{gateway}}`: `[gateway] site` and `id`. The same is written for machines in
[asyncapi.json](asyncapi.json) (AsyncAPI 3.0) and [schemas/](schemas/) (JSON Schema 2020-12, one file per payload).
Payloads are JSON in UTF-8. Readers ignore fields that they do not know; fields are only ever added. Times are RFC
3339 in UTC with milliseconds. An expiry is an MQTT 5 property; on 3.1.1 there is none.

"""

_HOMEWARD = """
## What goes to the hub

On the broker of `[upstream]`, which may be the plant's own; over HTTPS the payloads of the sync are the same. The
protocols, with their rules and refusals: [sync](sync.md), [questions to the hub](split.md).

"""
_RECORDS = """
The rows of the stream `alarm` carry [alarm](#alarm) as their payload. Those of `health` carry [mode](#mode),
[gap](#gap), [clock](#clock), [damage](#damage) or, every `[upstream] health_interval_s`, a sample of
[health](#health).
"""


def topics_page() -> str:
    head = ("topic", "payload", "QoS", "retained", "expiry", "what")
    parts = [_TOPICS, "## What the daemon publishes\n\n", _table(head, _rows(PLANT, "send"))]
    read: list[Row] = [(row[0], row[2], row[5]) for row in _rows(PLANT, "receive")]
    parts += ["\n## What the daemon reads\n\n", _table(("topic", "QoS", "what"), read), _HOMEWARD]
    parts += [_table(head, _rows(UPSTREAM, "send")), "\nThe hub answers:\n\n"]
    answers: list[Row] = [(row[0], row[1], row[5]) for row in _rows(UPSTREAM, "receive")]
    parts += [_table(("topic", "payload", "what"), answers), _RECORDS]
    names = [channel.schema for server in (PLANT, UPSTREAM) for channel in channels(server)]
    for name in dict.fromkeys(name for name in (*names, *records().values()) if name):
        schema = schemas()[name]
        parts += [f"\n## {name}\n\n`{schema['title']}`. {schema['description']}\n\n"]
        parts += [_table(("field", "type", "meaning"), _fields(schema, schema))]
    return "".join(parts)


def _rows(server: str, action: str) -> list[Row]:
    """The topics of one broker that are sent to or read."""
    operations = [found for found in asyncapi()["operations"].values() if found["action"] == action]
    of_server = [{"$ref": f"#/servers/{server}"}]
    return [_topic_row(each) for each in operations if resolve(each["channel"]["$ref"])["servers"] == of_server]


def _topic_row(operation: Json) -> Row:
    channel = resolve(operation["channel"]["$ref"])
    mqtt = operation["bindings"]["mqtt"]
    (message,) = channel["messages"].values()
    payload = payload_schema(resolve(message["$ref"]))
    address = channel["address"]
    topic = "the filters of the pipelines" if address is None else f"`R/{address.split('/', 4)[4]}`"
    expiry = mqtt.get("messageExpiryInterval", "–")
    return (
        topic,
        f"[{payload}](#{payload})" if payload else "text",
        str(mqtt["qos"]),
        "yes" if mqtt.get("retain") else "no",
        _expiry(expiry),
        operation["summary"],
    )


def _expiry(expiry: object) -> str:
    """Of a message: seconds, or the schema of them."""
    if isinstance(expiry, dict):
        return f"{expiry['minimum']} to {expiry['maximum']} s" if "maximum" in expiry else "3 × period"
    return f"{expiry} s" if isinstance(expiry, int) else str(expiry)


def _fields(part: Json, root: Json, path: str = "") -> list[Row]:
    """One row per field, those of nested objects behind theirs."""
    rows: list[Row] = []
    for name, found in part.get("properties", {}).items():
        field = root["$defs"][found["$ref"].rpartition("/")[2]] if "$ref" in found else found
        rows.append((f"`{path}{name}`", _type(field), field.get("description", "")))
        rows += _fields(field, root, f"{path}{name}.")
        for key, below in (("items", f"{path}{name}[]."), ("additionalProperties", f"{path}{name}.{{name}}.")):
            if isinstance(field.get(key), dict):
                rows += _fields(field[key], root, below)
    return rows


def _type(field: Json) -> str:
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return " \\| ".join(f"`{value}`" if value else "empty" for value in field["enum"])
    names: Any = field["type"]
    if "pattern" in field and "T" in field["pattern"]:
        return "time"
    return names if isinstance(names, str) else " or ".join(names)


# --- cli.md -----------------------------------------------------------------------------------------------------

_CLI = f"""# Command line

{MADE}

Every verb has `--help` with an example; verbs that print facts have `--json`. A mistake of the operator is answered
with what was wrong and what to try, never with a traceback. [Exit codes](exit-codes.md). """


def cli_page() -> str:
    context = _context(edged, "edged", None)
    parts = [_CLI, _help("edged", edged, context)]
    for verb in edged.list_commands(context):
        command = getattr(import_module(f"edged.cli.{verb}"), verb)
        parts.append(_help(f"edged {verb}", command, context))
        if isinstance(command, click.Group):
            parts += [_help(f"edged {verb} {name}", below, context) for name, below in command.commands.items()]
    return "".join(parts)


def _help(title: str, command: click.Command, above: click.Context) -> str:
    name = title.removeprefix("edged ")
    context = above if command is edged else _context(command, name, above)
    note = f"{VERBS[name]}\n\n" if name in VERBS else ""
    return f"\n## {title}\n\n{note}```text\n{command.get_help(context)}\n```\n"


def _context(command: click.Command, name: str, above: click.Context | None) -> click.Context:
    """As on a terminal of `WIDTH` columns."""
    settings: dict[str, Any] = {**command.context_settings, "max_content_width": WIDTH, "terminal_width": WIDTH}
    return click.Context(command, info_name=name, parent=above, **settings)


# --- metrics.md -------------------------------------------------------------------------------------------------

_METRICS = f"""# Metrics

{MADE}

Prometheus text, at `/metrics` on the Unix socket of the daemon and, with `[status] metrics_listen =
"127.0.0.1:9464"`, on loopback TCP. Looking by hand:

```sh
curl --silent --unix-socket /run/edged/edged.sock http://edged/metrics
```

Counters end in `_total` and histograms in `_bucket`, `_sum` and `_count` there. `edged status --json` and `R/health`
tell the same numbers. What is not known is absent, never 0. Beyond 1000 label values of one metric the rest shares
the value `other`.

## Measured

"""
_FROM_STATUS = """
## From the status document

Each number of the sections `link`, `store`, `outbox`, `sync` (only with `[upstream]`) and `host` of `edged status
--json`, and of each pipeline. Totals count since the start of the process.

"""
_UPLINK = Status(
    state="open", receiver="hub", lag_rows={}, ranges={}, in_flight=0, in_flight_bytes=0, rate_kbit_s=256,
    link_delay_ms=20, ack_delay_ms=30, counters={},
)  # fmt: skip


async def metrics_page() -> str:
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder), broken=True, homeward=True) as rig:
            await rig.app.serve_status()
            rig.app.homeward.on_status(msgspec.structs.asdict(_UPLINK))
            await rig.look_at_host()
            await rig.look_at_devices()
            rig.app.engine.parts.meta.ledger.omissions("anomaly")["slowed"] = 1
            rig.app.engine.parts.runners[0].told["escalation_shed"] = 1
            await rig.events(3)
            await rig.events(1, first=9)
            rig.link.arrive("in/pump-1", b"{")
            rig.app.engine.parts.meta.ledger.input("anomaly").shed["example"] = 1
            await rig.tick(2)
            rig.link.down()
            found = list(rig.app.engine.parts.metrics.registry.collect())
    measured = [_metric_row(metric) for metric in found if not metric.name.startswith("edged_status_")]
    told = [metric for metric in found if metric.name.startswith("edged_status_") and "_host_" not in metric.name]
    rows = [_metric_row(metric)[:3] for metric in told]
    rows += [(f"`edged_status_host_{name}`", "gauge", "") for name in HostHealth._fields]
    return "".join(
        (
            _METRICS,
            _table(("metric", "type", "labels", "meaning"), sorted(measured)),
            _FROM_STATUS,
            _table(("metric", "type", "labels"), sorted(rows)),
        )
    )


def _metric_row(metric: Metric) -> Row:
    labels = ", ".join(f"`{label}`" for label in getattr(metric, "_labelnames", ()))
    return f"`{metric.name}`", metric.type, labels, metric.documentation


def _table(head: Row, rows: list[Row]) -> str:
    lines: Iterator[str] = (f"| {' | '.join(cells)} |" for cells in (head, tuple("---" for _ in head), *rows))
    return "\n".join(lines) + "\n"


def main(folder: str) -> None:
    for name, text in pages().items():
        (Path(folder) / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
