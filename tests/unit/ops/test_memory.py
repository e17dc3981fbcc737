"""One heap for all threads."""

import subprocess
import sys


def test_the_c_library_takes_the_wish_and_threads_still_work() -> None:
    code = (
        "import threading; from edged.ops.memory import use_one_arena; taken = use_one_arena();"
        "parts = []; t = threading.Thread(target=lambda: parts.append(bytes(1 << 20))); t.start(); t.join();"
        "print(taken, len(parts[0]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() in (["True", "1048576"], ["False", "1048576"])
