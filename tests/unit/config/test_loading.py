"""From files to a frozen configuration: what loads, what is merged, what is filled in."""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
from pathlib import Path

import pytest

from edged.config import Config, InvalidConfig, load
from edged.config.classes import known_classes
from edged.config.isolated import load_isolated
from edged.config.loading import examine
from edged.errors import BugError, ConfigError, EdgedError, ExitCode
from tests.unit.config.conftest import VALID, Examine, keys, only, spoil

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[2]
EXAMPLES = sorted((REPOSITORY / "configs").glob("*.toml"))
SECOND = VALID[VALID.index("[[pipeline]]") :].replace('name = "pump"', 'name = "fan"')


def test_the_contract_example_loads_as_it_stands_given_the_model_files(tmp_path: Path) -> None:
    slot = tmp_path / "models" / "pump"
    slot.mkdir(parents=True)
    (slot / "model.onnx").write_bytes(b"12345")
    (slot / "manifest.json").write_text(json.dumps({"files": [{"path": "model.onnx", "size": 5}]}))
    text = (HERE / "contract_example.toml").read_text(encoding="utf-8")
    file = tmp_path / "edged.toml"
    file.write_text(text.replace("/var/lib/edged", str(tmp_path)), encoding="utf-8")
    report = examine([file], environ={})
    assert report.problems == ()
    assert report.config is not None
    pipeline = report.config.pipelines[0]
    assert pipeline.input.fields == ("accel_rms", "current_a", "temp_c")
    assert (pipeline.input.window, pipeline.input.stride) == (32, 8)
    assert pipeline.model.chain == ("openvino:cpu", "onnxruntime:cpu", "rules")
    assert pipeline.output.alarm[0].effective_code == "bearing"
    assert report.config.upstream is not None
    assert report.config.upstream.client_id == "edged-up-lyon-gw-01"
    assert [note.key for note in report.notes] == [
        "pipeline[pump].model.slot",
        "pipeline[pump].model.chain",
    ]


def test_the_example_is_the_one_of_the_contract() -> None:
    contract = REPOSITORY.parent / "shared" / "CONTRACT.md"
    if not contract.exists():
        pytest.skip("the contract is not beside this checkout")
    assert (HERE / "contract_example.toml").read_text(encoding="utf-8") in contract.read_text(encoding="utf-8")


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_a_ready_example_has_no_problem_but_the_files_it_needs(file: Path) -> None:
    report = examine([file], environ={}, need_models=False)
    table = {"tls": "broker", "upstream": "upstream"}.get(file.stem)
    missing = {f"{table}.{name}" for name in ("ca_file", "cert_file", "key_file") if table}
    assert set(keys(report)) == missing


def test_a_right_configuration_is_a_frozen_value(look: Examine, tmp_path: Path) -> None:
    config = look().config
    assert config is not None
    assert config.root == "edged/v1/lyon/gw-01"
    assert (config.broker.host, config.broker.port, config.broker.tls) == ("127.0.0.1", 1883, False)
    assert config.pipelines == config.pipeline
    assert config.pipelines[0].model.slot_dir(config.gateway.state_dir) == ""
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.gateway.site = "x"  # type: ignore[misc]
    assert config.hardware.chain == ("onnxruntime:cpu",)


def test_paths_are_relative_to_the_file_that_says_them(look: Examine, tmp_path: Path) -> None:
    config = look(also={"10.toml": SECOND}, files={"conf.d/pump.onnx": b"m"}).config
    assert config is not None
    assert config.gateway.state_dir == str(tmp_path / "state")
    assert [pipeline.model.path for pipeline in config.pipelines] == [
        str(tmp_path / "pump.onnx"),
        str(tmp_path / "conf.d" / "pump.onnx"),
    ]


def test_what_follows_from_other_keys_is_filled_in(look: Examine, tmp_path: Path) -> None:
    config = look(spoil(('chain = ["onnxruntime:cpu"]', ""))).config
    assert config is not None
    assert config.broker.client_id == "edged-lyon-gw-01"
    assert config.status.socket == f"{tmp_path}/state/edged.sock"
    assert config.pipelines[0].model.chain == config.hardware.chain


def test_as_a_service_the_socket_is_in_the_runtime_directory(look: Examine) -> None:
    config = look(environ={"RUNTIME_DIRECTORY": "/run/edged"}).config
    assert config is not None
    assert config.status.socket == "/run/edged/edged.sock"


def test_what_is_given_is_not_filled_in(look: Examine, tmp_path: Path) -> None:
    text = VALID.replace('url = "', 'client_id = "mine"\nurl = "') + '\n[status]\nsocket = "s.sock"\n'
    config = look(text).config
    assert config is not None
    assert (config.broker.client_id, config.status.socket) == ("mine", str(tmp_path / "s.sock"))
    assert config.pipelines[0].model.chain == ("onnxruntime:cpu",)


def test_files_of_conf_d_are_merged_in_name_order_and_the_later_wins(look: Examine) -> None:
    also = {"20.toml": "[store]\ncommit_linger_ms = 7\n", "10.toml": SECOND + "\n[store]\ncommit_linger_ms = 5\n"}
    config = look(also=also, files={"conf.d/pump.onnx": b"m"}).config
    assert config is not None
    assert config.store.commit_linger_ms == 7
    assert [pipeline.name for pipeline in config.pipelines] == ["pump", "fan"]


def test_a_single_file_is_read_without_the_conf_d_beside_it(look: Examine, tmp_path: Path) -> None:
    look(also={"10.toml": "nonsense = 1"})
    assert examine([tmp_path / "edged.toml"], environ={}).config is not None


def test_several_files_may_be_given(look: Examine, tmp_path: Path) -> None:
    look()
    (tmp_path / "more.toml").write_text("[store]\ncommit_linger_ms = 9\n")
    config = examine([tmp_path / "edged.toml", tmp_path / "more.toml"], environ={}).config
    assert config is not None
    assert config.store.commit_linger_ms == 9


def test_without_paths_the_default_file_and_its_conf_d_are_read(look: Examine, tmp_path: Path) -> None:
    look(also={"10.toml": SECOND}, files={"conf.d/pump.onnx": b"m"})
    report = examine(environ={}, default=tmp_path / "edged.toml")
    assert report.files == (str(tmp_path / "edged.toml"), str(tmp_path / "conf.d" / "10.toml"))
    assert report.config is not None


def test_the_same_pipeline_in_two_files_is_a_problem_of_the_second(look: Examine, tmp_path: Path) -> None:
    part = VALID[VALID.index("[[pipeline]]") :]
    problem = only(look(also={"10.toml": part}, files={"conf.d/pump.onnx": b"m"}))
    assert problem.file == str(tmp_path / "conf.d" / "10.toml")
    assert (problem.key, problem.got) == ("pipeline[0].name", '"pump"')
    assert "two pipelines" in problem.message


def test_a_table_in_one_file_and_a_value_in_another_contradict_each_other(look: Examine, tmp_path: Path) -> None:
    problem = only(look(also={"10.toml": "broker = 3"}))
    assert (problem.file, problem.key) == (str(tmp_path / "conf.d" / "10.toml"), "broker")
    assert str(tmp_path / "edged.toml") in problem.message


def test_a_problem_names_the_file_that_said_it(look: Examine, tmp_path: Path) -> None:
    problem = only(look(also={"10.toml": "[store]\ncommit_linger_ms = -1\n"}))
    assert problem.file == str(tmp_path / "conf.d" / "10.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[gateway\n", "at line 1, column 9"),
        (b"a = 1\na = 2\n", "at line 2"),
        (b"a = \xff", "byte 4 is not UTF-8"),
        (b"a = " + b"9" * 5000, "not TOML"),
        (b"a = " + b"[" * 5000 + b"]" * 5000, "nested too deeply"),
        (b"[" + b".".join([b"a"] * 2000) + b"]\n", "nested too deeply"),
        (b"#" * 4_000_001, "too long"),
    ],
    ids=["syntax", "twice", "encoding", "number", "lists", "tables", "size"],
)
def test_a_file_that_is_no_toml_is_one_problem_with_its_place(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "edged.toml").write_bytes(text)
    assert message in only(examine([tmp_path / "edged.toml"], environ={})).message


def test_a_missing_file_is_one_problem_with_a_cure(tmp_path: Path) -> None:
    problem = only(examine([tmp_path / "none.toml"], environ={}))
    assert "does not exist" in problem.message
    assert "--config" in problem.cure


def test_a_folder_instead_of_a_file_is_one_problem(tmp_path: Path) -> None:
    (tmp_path / "edged.toml").mkdir()
    assert "cannot be read" in only(examine([tmp_path], environ={})).message


def test_a_broken_file_of_conf_d_does_not_hide_problems_of_the_others(look: Examine) -> None:
    report = look(spoil(("window = 32", "window = 0")), also={"10.toml": "="})
    assert len(report.problems) == 2


def test_windows_that_could_outgrow_the_memory_of_the_class_are_noted(look: Examine) -> None:
    report = look(spoil(("window = 32", "window = 8000")))
    assert report.config is not None
    assert [note.key for note in report.notes] == ["limits.max_devices"]
    assert "1280000000 bytes" in report.notes[0].message


def test_load_raises_with_every_problem_as_text_and_as_data(look: Examine, tmp_path: Path) -> None:
    look(spoil(("window = 32", "window = 0"), ('site = "lyon"', 'site = "l y"')))
    with pytest.raises(ConfigError) as caught:
        load([tmp_path])
    assert isinstance(caught.value, InvalidConfig)
    assert caught.value.exit_code is ExitCode.CONFIG
    assert len(caught.value.problems) == len(caught.value.details) == 2
    assert "2 problems" in caught.value.message


def test_load_returns_the_configuration(look: Examine, tmp_path: Path) -> None:
    look()
    assert isinstance(load([tmp_path]), Config)


def test_the_isolated_way_gives_the_same_configuration(look: Examine, tmp_path: Path) -> None:
    look()
    assert load([tmp_path], isolated=True) == load([tmp_path])


def test_the_isolated_way_gives_the_same_problems(look: Examine, tmp_path: Path) -> None:
    look(spoil(("window = 32", "window = 0")))
    with pytest.raises(InvalidConfig) as isolated:
        load([tmp_path], isolated=True)
    with pytest.raises(InvalidConfig) as here:
        load([tmp_path])
    assert isolated.value.details == here.value.details


def test_a_child_that_dies_is_our_bug(tmp_path: Path) -> None:
    with pytest.raises(BugError):
        load_isolated([tmp_path], python="false")


def test_a_file_that_hangs_is_given_up_as_the_worlds_fault(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "edged.toml")  # reading it waits for a writer that never comes
    with pytest.raises(EdgedError, match="within"):
        load_isolated([tmp_path / "edged.toml"], timeout_s=1.0)


def test_every_hardware_class_is_valid_and_known_by_its_file_name(look: Examine) -> None:
    names = known_classes()
    assert {"cpu", "intel-lowpower", "jetson-vision", "coral-usb", "factory-gateway-gpu"} <= set(names)
    for name in names:
        text = VALID.replace('id = "gw-01"', f'id = "gw-01"\nhardware_class = "{name}"')
        config = look(text).config
        assert config is not None
        table = tomllib.loads(names[name].read_text(encoding="utf-8"))
        assert config.hardware.description == table["description"]
        assert config.hardware.chain == tuple(table["chain"])


def test_single_keys_of_the_hardware_class_can_be_overridden(look: Examine) -> None:
    config = look(VALID + "\n[hardware.lanes]\ninline_max_us = 7\n").config
    assert config is not None
    assert (config.hardware.lanes.inline_max_us, config.hardware.lanes.together_max_ms) == (7, 20)


def test_a_problem_in_a_class_file_names_that_file_and_its_own_keys(look: Examine, tmp_path: Path) -> None:
    look()
    folder = tmp_path / "classes"
    folder.mkdir()
    (folder / "cpu.toml").write_text('chain = ["onnxruntime:tpu"]\n[lanes]\ninline_max_us = -1\n')
    report = examine([tmp_path], environ={}, class_folders=[folder])
    assert {(problem.file, problem.key) for problem in report.problems} == {
        (str(folder / "cpu.toml"), "lanes.inline_max_us"),
        (str(folder / "cpu.toml"), "chain[0]"),
    }


def test_a_class_file_that_is_no_toml_is_a_problem(look: Examine, tmp_path: Path) -> None:
    look()
    (tmp_path / "cpu.toml").write_text("=")
    assert "not TOML" in only(examine([tmp_path], environ={}, class_folders=[tmp_path])).message


def test_an_unknown_hardware_class_names_the_known_ones(look: Examine) -> None:
    problem = only(look(VALID.replace('id = "gw-01"', 'id = "gw-01"\nhardware_class = "jetson-visoin"')))
    assert problem.nearest == "jetson-vision"
    assert "coral-usb" in problem.allowed
