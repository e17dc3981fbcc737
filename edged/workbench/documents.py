"""The workbench's JSON files: the same facts are the same bytes, so that a file can be signed and made again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edged.infer.loading import ModelFile


def to_bytes(facts: Mapping[str, Any]) -> bytes:
    """Sorted keys, UTF-8, one trailing newline, no NaN."""
    return (json.dumps(facts, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def describe_file(file: ModelFile) -> dict[str, Any]:
    return {"file": file.path.name, "sha256": file.sha256, "bytes": file.size_bytes}
