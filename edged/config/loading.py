"""The one way to a configuration: files → merged table → values → rules → this machine. Everything wrong, at once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

from edged.config import host
from edged.config.classes import CLASS_FOLDERS, underlay_class
from edged.config.keys import keys_of
from edged.config.problems import Finding, InvalidConfig, Path, Problem, got_text
from edged.config.rules import check_rules
from edged.config.rules_links import check_questions, check_socket
from edged.config.rules_pipeline import check_windows
from edged.config.settings import Config
from edged.config.sources import DEFAULT_FILE, Merged, find_files, read_merged
from edged.config.validate import validate


@dataclass(frozen=True, slots=True)
class Report:
    """What a look at the configuration found. `config` is None when there are problems; notes never prevent a start."""

    config: Config | None
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]
    files: tuple[str, ...]


def load(
    paths: Sequence[str | FilePath] = (),
    *,
    environ: Mapping[str, str] = os.environ,
    need_models: bool = True,
) -> Config:
    """The configuration, or `InvalidConfig` (a `ConfigError`) with every problem.

    paths: files that replace /etc/edged/edged.toml and its conf.d; a folder stands for its edged.toml and conf.d.
    need_models: a missing model file is a problem; the daemon says False, since it starts without a usable model.
    """
    report = examine(paths, environ=environ, need_models=need_models)
    if report.config is None:
        raise InvalidConfig(report.problems)
    return report.config


def examine(
    paths: Sequence[str | FilePath] = (),
    *,
    environ: Mapping[str, str] = os.environ,
    need_models: bool = True,
    default: FilePath = DEFAULT_FILE,
    class_folders: Sequence[FilePath] = CLASS_FOLDERS,
) -> Report:
    """Like `load`, but hands back notes and problems instead of raising."""
    files = find_files(paths, default=default)
    merged = read_merged(files)
    underlay_class(merged, class_folders)
    _absolute_paths(Config, merged.data, merged, ())
    _alarm_lists(merged.data)
    config = validate(Config, merged.data)
    mistyped = config if isinstance(config, list) else []
    findings = [*merged.findings, *mistyped, *check_rules(merged.data, mistyped)]
    if isinstance(config, Config):
        config = resolve(config, environ)
        findings += [finding.below("status") for finding in check_socket(config.status.socket)]
        findings += [finding.below("broker") for finding in host.check_secrets(config.broker, environ)]
        if config.upstream is not None:
            findings += [finding.below("upstream") for finding in host.check_secrets(config.upstream, environ)]
        findings += [*host.check_models(config), *host.check_extras(config)] if need_models else ()
        findings += check_windows(config)
        findings += check_questions(config)
    problems = [*merged.problems, *(_problem(finding, merged) for finding in findings if not finding.note)]
    if merged.problems:  # what an unreadable file would have said is not missing: only its own problem is shown
        problems = [problem for problem in problems if problem.message != "is missing"]
    return Report(
        config=config if isinstance(config, Config) and not problems else None,
        problems=tuple(problems),
        notes=tuple(_problem(finding, merged) for finding in findings if finding.note),
        files=tuple(map(str, files)),
    )


def resolve(config: Config, environ: Mapping[str, str]) -> Config:
    """Fill in what follows from other keys: client id, status socket, the chains of pipelines that name none."""
    gateway, broker, status = config.gateway, config.broker, config.status
    if not broker.client_id:
        broker = replace(broker, client_id=f"edged-{gateway.site}-{gateway.id}")
    upstream = config.upstream
    if upstream is not None and not upstream.client_id:
        upstream = replace(upstream, client_id=f"edged-up-{gateway.site}-{gateway.id}")
    if not status.socket:
        folder = environ.get("RUNTIME_DIRECTORY", "").split(":")[0] or gateway.state_dir
        status = replace(status, socket=f"{folder}/edged.sock")
    pipelines = tuple(
        pipeline
        if pipeline.model.chain
        else replace(pipeline, model=replace(pipeline.model, chain=config.hardware.chain))
        for pipeline in config.pipeline
    )
    return replace(config, broker=broker, upstream=upstream, status=status, pipeline=pipelines)


def _absolute_paths(table: type, raw: Any, merged: Merged, at: Path) -> None:
    """Make file names absolute, relative to the folder of the file that says them."""
    if isinstance(raw, list):
        for index, item in enumerate(raw):
            _absolute_paths(table, item, merged, (*at, index))
    elif isinstance(raw, dict):
        for name, info in keys_of(table).items():
            value = raw.get(name)
            if info.key.is_file and isinstance(value, str) and value:
                folder = FilePath(merged.origin((*at, name)).file).absolute().parent
                raw[name] = os.path.normpath(folder / value)
            elif info.table is not None:
                _absolute_paths(info.table, value, merged, (*at, name))


def _alarm_lists(raw: Mapping[str, Any]) -> None:
    """`alarm = { ... }` is short for a list of one."""
    pipelines = raw.get("pipeline")
    for pipeline in pipelines if isinstance(pipelines, list) else ():
        output = pipeline.get("output") if isinstance(pipeline, dict) else None
        if isinstance(output, dict) and isinstance(output.get("alarm"), dict):
            output["alarm"] = [output["alarm"]]


def _problem(finding: Finding, merged: Merged) -> Problem:
    origin = merged.origin(finding.path)
    key = _key_text(finding.path, merged)
    from_class = finding.path[:1] == ("hardware",) and origin.file not in merged.files
    return Problem(
        file=origin.file,
        key=key.removeprefix("hardware.") if from_class else key,
        message=finding.message,
        got="nothing" if finding.message == "is missing" else got_text(key, finding.got),
        allowed=finding.allowed,
        unit=finding.unit,
        nearest=finding.nearest,
        cure=finding.cure,
    )


def _key_text(path: Path, merged: Merged) -> str:
    """`pipeline[pump].input.window`: a pipeline by its name, or by its number in its file when that tells nothing."""
    text = ""
    for depth, step in enumerate(path):
        if depth == 1 and path[0] == "pipeline" and isinstance(step, int):
            names = [table.get("name") if isinstance(table, dict) else None for table in merged.data["pipeline"]]
            known = isinstance(names[step], str) and names.count(names[step]) == 1
            text += f"[{names[step] if known else merged.origin(path[:2]).number}]"
        else:
            text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text
