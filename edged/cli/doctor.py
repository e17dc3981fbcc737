"""`edged doctor`: what this box is, what it can run, and what is in the way; for people or as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edged.cli.options import config_option, json_option
from edged.errors import ExitCode

if TYPE_CHECKING:
    from edged.cli.doctor_findings import Finding
    from edged.cli.doctor_looking import Examined
    from edged.config.loading import Report
    from edged.infer.runtime import Probe

END_S = 5.0
_MARKS = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM", "unknown": "unknown"}


@click.command("doctor")
@config_option
@json_option
def doctor(config: tuple[Path, ...], as_json: bool) -> int:
    """Say which class of hardware fits this box, what it can run, and what is in the way, each with its cure.

    Looks at processor, accelerators, runtimes (each in a process of its own, with a time limit), sensors, memory and
    clock; with a configuration also at its state folder and its brokers. Needs no root and changes nothing; what it
    could not see it calls unknown.

    Exits with 0 without a problem (notes and unknowns are none), else with the code of the first one: 69 nobody answers
    or no runtime is usable, 74 the disk fails, 77 rights are wrong, 78 the configuration has problems.

    \b
    Example:
      edged doctor
      edged doctor --config configs/pump.toml --json
    """
    from edged.cli.doctor_looking import Eyes, examine
    from edged.ops.sensors.nvml import Nvml

    report = read_config(config)
    with children() as probe:
        examined = examine(None if report is None else report.config, Eyes(probe, nvml=Nvml()))
    findings = (*configuration(report, asked=bool(config)), *examined.findings)
    examined = examined._replace(findings=findings)
    if as_json:
        click.echo(json.dumps(document(examined), indent=2, ensure_ascii=False))
    else:
        for line in lines(findings):
            click.echo(line)
    return examined.exit_code


@contextmanager
def children() -> Iterator[Callable[[str], Probe]]:
    """A probe that asks each runtime in a process of its own, all of them ended at the end."""
    from edged.cli.doctor_looking import PROBE_S
    from edged.infer.hosting.devices import Devices
    from edged.ops.clock import SystemClock

    devices = Devices(SystemClock())
    try:
        yield lambda rung: devices.probe(rung, PROBE_S)
    finally:
        devices.close(END_S)


def read_config(paths: tuple[Path, ...]) -> Report | None:
    """The configuration; None where none was named and none is installed."""
    from edged.config.loading import examine
    from edged.config.sources import DEFAULT_FILE

    if not paths and not DEFAULT_FILE.exists():
        return None
    return examine(paths)


def configuration(report: Report | None, *, asked: bool) -> Iterator[Finding]:
    """What is to be said about the configuration itself."""
    from edged.cli.doctor_findings import Finding

    if report is None:
        text = "none is installed: brokers and state folder were not looked at"
        yield Finding("configuration", "unknown", text, "name one with --config")
    elif report.config is None:
        count = len(report.problems)
        text = f"{count} problem{'s' if count != 1 else ''}: brokers and state folder were not looked at"
        cure = "edged check" + (" --config …" if asked else "")
        yield Finding("configuration", "problem", text, cure, ExitCode.CONFIG)
    else:
        yield Finding("configuration", "ok", ", ".join(report.files))


def lines(findings: tuple[Finding, ...]) -> Iterator[str]:
    """For people: one line per finding, its cure below it, and how many problems there are."""
    width = max(len(each.area) for each in findings)
    for each in findings:
        yield f"{_MARKS[each.verdict]}  {each.area:<{width}}  {each.text}"
        if each.cure:
            yield f"{'':9}{'':{width}}  cure: {each.cure}"
    problems = sum(each.verdict == "problem" for each in findings)
    yield "no problems" if not problems else f"{problems} problem{'s' if problems != 1 else ''}"


def document(examined: Examined) -> dict[str, object]:
    """For machines."""
    fields = ("area", "verdict", "text", "cure")
    return {
        "ok": examined.exit_code == ExitCode.OK,
        "exit_code": int(examined.exit_code),
        "hardware_class": examined.choice._asdict(),
        "findings": [{name: getattr(each, name) for name in fields} for each in examined.findings],
        "runtimes": {rung: _told(probe) for rung, probe in examined.runtimes.items()},
        "device": dict(examined.device),
    }


def _told(probe: Probe) -> dict[str, object]:
    return {
        **probe._asdict(),
        "versions": dict(probe.versions),
        "devices": [device._asdict() for device in probe.devices],
    }
