"""The reason codes in the code and in the reference are the same."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
PAGE = REPOSITORY / "docs" / "reference" / "reasons.md"
FIRST_ARGUMENT = {"Refused": 0, "InferenceError": 0, "StickRefused": 0, "spoil": 1}  # calls and where their code stands
TABLES = {"_REASONS", "_REASONS_OF_FLAGS"}  # dictionaries whose values are codes


def documented() -> set[str]:
    return set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), flags=re.MULTILINE))


def literals(tree: ast.AST) -> set[str]:
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def codes_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            place = FIRST_ARGUMENT.get(name)
            if place is not None and len(node.args) > place and isinstance(node.args[place], ast.Constant):
                yield from literals(node.args[place])
        elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if {getattr(target, "id", "") for target in targets} & TABLES:
                for value in node.value.values:
                    yield from literals(value)


def sources() -> dict[str, ast.Module]:
    files = sorted((REPOSITORY / "edged").rglob("*.py"))
    return {str(path): ast.parse(path.read_text()) for path in files}


def test_every_code_that_the_program_gives_is_explained() -> None:
    given = {code for tree in sources().values() for code in codes_in(tree)}
    assert len(given) > 15
    assert given - documented() == set()


def test_every_code_that_is_explained_is_given_somewhere() -> None:
    written = {text for tree in sources().values() for text in literals(tree)}
    assert documented() - written == set()
