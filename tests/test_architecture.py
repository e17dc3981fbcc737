"""The folders, the page that draws them and the import rules say the same."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "architecture.md"


def drawn(page: str) -> set[str]:
    """Names one level below edged/ in the tree under the heading `## Folder tree`; folders end in a slash."""
    block = re.search(r"^## Folder tree\n+```\w*\nedged/\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert block, "docs/architecture.md has no fenced tree of edged/ under `## Folder tree`"
    return set(re.findall(r"^  (\w+(?:/|\.py))(?=\s|$)", block[1], re.MULTILINE))


def rows(page: str) -> list[str]:
    """The rows drawn under the heading `## Who may import whom`, from top to bottom."""
    block = re.search(r"^## Who may import whom\n.*?^```\w*\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert block, "docs/architecture.md has no fenced rows under `## Who may import whom`"
    return block[1].splitlines()


def existing(package: Path) -> set[str]:
    """Modules and packages one level below `package`, without its __init__.py; folders end in a slash."""
    modules = {path.name for path in package.glob("*.py") if path.name != "__init__.py"}
    return modules | {f"{path.name}/" for path in package.iterdir() if path.is_dir() and any(path.glob("*.py"))}


def test_the_drawn_tree_names_exactly_the_folders_that_exist() -> None:
    assert drawn(PAGE.read_text(encoding="utf-8")) == existing(REPOSITORY / "edged")


def test_the_drawn_rows_are_those_that_the_import_rules_check() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    (layers,) = (rule["layers"] for rule in settings["tool"]["importlinter"]["contracts"] if rule["type"] == "layers")

    assert rows(PAGE.read_text(encoding="utf-8")) == layers


def test_every_import_keeps_to_the_rules() -> None:
    lint = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )

    assert lint.returncode == 0, lint.stdout + lint.stderr
