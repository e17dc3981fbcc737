"""What every test lives under: nothing blocks its event loop, and real data is read where it lies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED_DATA = REPOSITORY.parent / "shared" / "data"

# The ONNX runtime writes telemetry below $HOME when it is merely imported; child processes inherit this, too.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# How quick the machine is at this moment says nothing about the code.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")


@pytest.fixture(autouse=True)
def event_loop_is_never_blocked(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test when code of edged sleeps, waits for a lock or touches files or sockets on a running event loop."""
    exempt = request.node.get_closest_marker("allow_blocking")
    if exempt is None:
        with blockbuster_ctx("edged") as watch:
            # The measurement of coverage takes a lock of its own whenever a function is seen for the first time.
            watch.functions["threading.Lock.acquire"].can_block_in("coverage/collector.py", {"lock_data"})
            yield
        return
    if not exempt.kwargs.get("reason"):
        pytest.fail("allow_blocking needs a reason: @pytest.mark.allow_blocking(reason='...')")
    yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets, beside the repository; skips the test where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real data sets are absent: expected ../shared/data beside the repository")
    return SHARED_DATA
