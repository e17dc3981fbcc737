"""`edged demo`: a plant, a broker, the daemon and a SCADA view, all on this machine and gone afterwards."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edged.errors import ExitCode


@click.command("demo")
@click.option("--seconds", type=click.FloatRange(1.0, 86_400.0), help="End after this time; else with Ctrl-C.")
@click.option("--chaos", is_flag=True, help="Cut the link, silence it, kill the daemon with -9, and show the recovery.")
@click.option(
    "--accelerator", is_flag=True, help="Compute on a stand-in accelerator, kill it, and show the fall and the return."
)
@click.option("--pumps", type=click.IntRange(1, 200), default=6, show_default=True, help="Pumps in the plant.")
@click.option("--rate", type=click.FloatRange(0.1, 500.0), default=20.0, show_default=True, help="Events/s per pump.")
@click.option(
    "--keep",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Keep configuration, store and logs in this new folder.",
)
def demo(seconds: float | None, chaos: bool, accelerator: bool, pumps: int, rate: float, keep: Path | None) -> int:
    """Show what the daemon does, with simulated pumps, a broker and a hub of its own, and a line that is cut.

    Exit code 0 means that nothing was lost and nothing came twice. Where the output is no terminal, its last line is
    one JSON object.

    \b
    Example:
      edged demo --seconds 30 --chaos
      edged demo --seconds 60 --accelerator
    """
    from edged.demo.processes import DemoError

    try:
        from rich.console import Console

        from edged.demo.run import Options, play
        from edged.demo.show import LineShow, TerminalShow
    except ModuleNotFoundError as error:
        raise DemoError(
            f"the demo needs the Python package {error.name}, which the daemon itself does not",
            hint="pip install 'edged[demo]'",
        ) from error
    from edged.ops.clock import SystemClock

    clock = SystemClock()
    console = Console()
    hub = [sys.executable, "-m", "edged.hub"]
    options = Options(
        seconds=seconds, chaos=chaos, pumps=pumps, rate_hz=rate, keep=keep, hub=hub, accelerator=accelerator
    )
    with TerminalShow(console, clock) if console.is_terminal else LineShow(sys.stdout, clock) as show:
        summary = play(options, clock=clock, daemon=[sys.executable, "-m", "edged"], show=show)
        show.end(summary)
    return ExitCode.OK if summary.kept_its_promise else ExitCode.BUG
