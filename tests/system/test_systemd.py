"""The service as systemd sees it: starts, reloads, dies, hangs, stops and refuses as the unit promises."""

from __future__ import annotations

import signal

import pytest

from tests.doubles.waiting import until
from tests.system.service import Service

pytestmark = pytest.mark.timeout(180)  # a boot, and what systemd waits for before it acts


def test_it_is_active_once_it_is_ready_and_says_how_it_is(service: Service) -> None:
    assert service.answers_an_event()

    assert service.show("Type") == "notify"
    assert service.show("SubState") == "running"
    service.says("normal; connected; 1 events, 1 results, 0 waiting")
    assert service.status()["ledger"]["balanced"]


def test_reload_takes_over_the_linger_without_a_restart(service: Service) -> None:
    before = service.show("MainPID")

    service.configure(store="commit_linger_ms = 40\n")
    service.systemctl("reload")

    service.wait_for_journal("applied=store.commit_linger_ms")
    service.wait_for("ActiveState", "active")
    assert service.show("MainPID") == before
    assert service.answers_an_event()


def test_reloading_a_wrong_configuration_changes_nothing(service: Service) -> None:
    before = service.show("MainPID")

    service.configure(store="commit_linger_ms = -1\n")
    service.systemctl("reload")

    service.wait_for_journal("reload_refused")
    service.wait_for("ActiveState", "active")
    assert service.show("MainPID") == before
    assert service.answers_an_event()


def test_killed_it_is_started_again_and_answers_what_came_meanwhile(service: Service) -> None:
    before = service.show("MainPID")

    service.systemctl("kill", "--signal=KILL")
    answers = service.answers(service.publish(50))

    assert service.show("NRestarts") == "1"
    assert service.show("MainPID") != before
    assert len({answer["id"] for answer in answers}) == 50


def test_a_hanging_process_is_killed_by_the_watchdog_and_started_again(installed: Service) -> None:
    installed.drop_in("[Service]\nWatchdogSec=3\nTimeoutAbortSec=1\n")
    service = installed.start()

    service.systemctl("kill", "--kill-who=main", "--signal=STOP")
    answers = service.answers(service.publish(50))

    assert service.show("NRestarts") == "1"
    assert "Watchdog timeout" in service.journal()
    assert len({answer["id"] for answer in answers}) == 50


def test_what_the_watchdog_ends_says_where_it_hung(service: Service) -> None:
    service.systemctl("kill", "--kill-who=main", f"--signal={signal.SIGABRT.value}")

    service.wait_for_journal("Fatal Python error: Aborted")
    service.wait_for_journal("edged/daemon.py")
    service.connected()
    assert service.answers_an_event()


def test_stopping_drains_and_ends_with_0(service: Service) -> None:
    numbers = service.publish(500)

    took_s = service.stop()

    assert service.show("Result") == "success"
    assert service.show("ExecMainStatus") == "0"
    assert took_s < 20
    service.wait_for_journal("drained")
    service.start()
    assert len({answer["id"] for answer in service.answers(numbers)}) == 500


def test_stopping_while_the_broker_hangs_ends_in_time_and_loses_nothing(installed: Service) -> None:
    installed.configure(store="commit_linger_ms = 500\n")  # so that the results come after the broker has stopped
    service = installed.start()
    numbers = service.publish(100)
    service.machine.run("systemctl", "kill", "mosquitto.service", "--signal=STOP")
    until(lambda: service.status()["waiting_results"] >= 100, "the results wait for the broker")

    took_s = service.stop()

    assert service.show("Result") == "success"
    assert service.show("ExecMainStatus") == "0"
    assert took_s < 20
    service.machine.run("systemctl", "kill", "mosquitto.service", "--signal=CONT")
    service.start()
    assert len({answer["id"] for answer in service.answers(numbers)}) == 100


def test_a_wrong_configuration_is_said_once_and_not_tried_again(installed: Service) -> None:
    installed.configure(store="commit_linger_ms = -1\nbudget_byts = 5\n")

    installed.systemctl("start", check=False)

    installed.wait_for("ActiveState", "failed")
    assert installed.show("ExecMainStatus") == "78"
    assert installed.show("NRestarts") == "0"
    assert "commit_linger_ms" in installed.journal()
    assert "budget_bytes" in installed.journal()


def test_without_a_broker_it_starts_and_connects_when_there_is_one(installed: Service) -> None:
    installed.machine.run("systemctl", "stop", "mosquitto.service")

    installed.systemctl("start")

    installed.wait_for("ActiveState", "active")
    installed.says("broker away")
    installed.machine.run("systemctl", "start", "mosquitto.service")
    installed.connected()
    assert installed.answers_an_event()


def test_the_broker_password_comes_from_a_file_that_only_root_can_read(installed: Service) -> None:
    machine, plant = installed.machine, ("-u", "plant", "-P", "secret")
    machine.write("/etc/mosquitto/conf.d/password.conf", "allow_anonymous false\npassword_file /etc/mosquitto/passwd\n")
    machine.run("mosquitto_passwd", "-b", "-c", "/etc/mosquitto/passwd", "plant", "secret")
    machine.run("chown", "mosquitto", "/etc/mosquitto/passwd")
    machine.run("systemctl", "restart", "mosquitto.service")
    machine.write("/etc/edged/broker.password", "secret\n", mode="600")
    installed.drop_in("[Service]\nLoadCredential=broker-password:/etc/edged/broker.password\n")
    installed.configure(broker='username = "plant"\npassword_credential = "broker-password"\n')

    service = installed.start()

    assert len(service.answers(service.publish(1, more=plant), more=plant)) == 1
    assert "Permission denied" in machine.run(
        "setpriv", "--reuid=edged", "--clear-groups", "sh", "-c", "cat /etc/edged/broker.password 2>&1", check=False
    )


def test_the_sandbox_is_rated_two_or_better_and_holds(service: Service) -> None:
    service.machine.run("systemd-analyze", "security", "--threshold=20", "--no-pager", "edged.service")

    status = service.machine.run("cat", f"/proc/{service.show('MainPID')}/status")
    facts = dict(line.split(":", 1) for line in status.splitlines())
    assert int(facts["CapEff"], 16) == 0
    assert facts["Seccomp"].strip() == "2"
    assert facts["NoNewPrivs"].strip() == "1"
    assert service.machine.run("stat", "-c", "%U %a", "/var/lib/edged").split() == ["edged", "750"]


def test_the_onnx_runtime_leaves_no_telemetry(service: Service) -> None:
    assert service.answers_an_event()

    service.stop()

    assert service.machine.run("find", "/", "-xdev", "-path", "*/.cache/Microsoft*") == ""


def test_an_enabled_service_comes_back_with_the_power_and_goes_on_where_it_was(service: Service) -> None:
    service.systemctl("enable")
    before = service.answers(service.publish(50))
    service.machine.run("systemctl", "restart", "mosquitto.service")  # what it knows of sessions is on its disk then
    service.connected()

    service.machine.power_cut()
    service.machine.boot()

    service.wait_for("ActiveState", "active")
    service.connected()
    (answer,) = service.answers(service.publish(1))
    assert answer["epoch"] == before[-1]["epoch"]
    assert answer["seq"] > before[-1]["seq"]
