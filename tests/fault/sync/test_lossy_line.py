"""The line that loses packets does what it says."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.doubles.netns import FAR_ADDRESS, Loss, LossyLine

ECHO = f"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("{FAR_ADDRESS}", 9))
print("up", flush=True)
while True:
    s.sendto(*s.recvfrom(2000))
"""


@pytest.fixture
def line() -> Iterator[LossyLine]:
    """Sends every packet back at its far end."""
    with LossyLine() as line, line.far():
        echo = subprocess.Popen([sys.executable, "-c", ECHO], stdout=subprocess.PIPE)
        assert echo.stdout is not None
        assert echo.stdout.readline() == b"up\n"
        yield line
        echo.kill()
        echo.communicate()


def ping(line: LossyLine, count: int, *, wait_s: float = 1.0) -> tuple[int, float]:
    """Send so many packets at once; (answers, seconds until the last one)."""
    with line.near(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near:
        begun = time.monotonic()
        last = begun
        for number in range(count):
            near.sendto(bytes([number % 256]) * 100, (FAR_ADDRESS, 9))
        answers = 0
        while answers < count:
            near.settimeout(wait_s)
            try:
                near.recv(2000)
            except TimeoutError:
                break
            answers, last = answers + 1, time.monotonic()
        return answers, last - begun


def test_packets_arrive_late_by_the_delay_of_both_ways(line: LossyLine) -> None:
    assert ping(line, 50)[0] == 50
    line.shape(Loss(delay_s=0.2, jitter_s=0.01))
    answers, took_s = ping(line, 20)
    assert answers == 20
    assert 0.36 < took_s < 5


def test_a_share_of_the_packets_never_arrives(line: LossyLine) -> None:
    line.shape(Loss(loss=0.4))
    assert 80 < sum(ping(line, 50, wait_s=0.2)[0] for _ in range(8)) < 210, "0.6 × 0.6 of 400 is 144"


def test_a_cut_line_lets_nothing_pass_until_it_is_whole_again(line: LossyLine) -> None:
    line.cut()
    assert ping(line, 10, wait_s=0.3)[0] == 0
    line.shape(Loss())
    assert ping(line, 10)[0] == 10


def test_the_rate_holds(line: LossyLine) -> None:
    line.shape(Loss(rate_bytes_s=8000))  # packets of 128 bytes with their headers
    answers, took_s = ping(line, 50)
    assert answers == 50
    assert 0.75 < took_s < 5
