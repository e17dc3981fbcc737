"""Draw the pictures of first-hour.md from two real runs: `.venv/bin/python docs/tutorial/draw_demo.py`."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from edged.demo.run import Options, play
from edged.demo.show import LineShow
from edged.demo.view import Screen, render
from edged.ops.clock import SystemClock

HERE = Path(__file__).parent
SECONDS = 30.0
CLOCK = SystemClock()
HUB = (sys.executable, "-m", "edged.hub")


class Camera(LineShow):
    """Keeps the first frame after each of the wanted moments."""

    def __init__(self, title: str, moments: dict[str, Callable[[Screen], bool]]) -> None:
        super().__init__(sys.stdout, CLOCK)
        self._title = title
        self._moments = moments

    def frame(self, make: Callable[[], Screen]) -> None:
        super().frame(make)
        screen = make()
        for name, reached in list(self._moments.items()):
            if reached(screen):
                del self._moments[name]
                draw(screen, HERE / name, self._title)


def draw(screen: Screen, path: Path, title: str) -> None:
    console = Console(width=120, file=io.StringIO(), record=True, force_terminal=True)
    console.print(render(screen))
    svg = console.export_svg(title=title)
    # Any monospaced font of the reader's will do; nothing is to be fetched from elsewhere.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace("Fira Code", "ui-monospace")
    path.write_text(svg, encoding="utf-8")


def take(title: str, moments: dict[str, Callable[[Screen], bool]], *, chaos: bool) -> None:
    """Run the demo once, and draw what it shows at these moments."""
    options = Options(seconds=SECONDS, chaos=chaos, pumps=6, rate_hz=20.0, keep=None, hub=HUB)
    with Camera(title, moments) as show:
        show.end(play(options, clock=CLOCK, daemon=[sys.executable, "-m", "edged"], show=show))
    assert not moments, f"never seen: {', '.join(moments)}"


if __name__ == "__main__":
    take(
        "make demo SECONDS=30",
        {
            "demo-line-cut.svg": lambda screen: screen.line == "cut" and screen.elapsed_s > SECONDS / 2,
            "demo-end.svg": lambda screen: screen.elapsed_s > SECONDS - 2,
        },
        chaos=False,
    )
    take(
        "make demo SECONDS=30 CHAOS=1",
        {"demo-link-cut.svg": lambda screen: screen.doing.startswith("the cable") and screen.tally.lost > 200},
        chaos=True,
    )
