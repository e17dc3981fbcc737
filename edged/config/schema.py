"""The JSON Schema of the configuration file, as editors and generators want it."""

from __future__ import annotations

from typing import Any

from edged.config.settings import Config
from edged.config.validate import adapter


def config_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of edged.toml. What spans several keys is checked by `edged check` only."""
    schema: dict[str, Any] = adapter(Config).json_schema()
    output = schema["$defs"]["Output"]["properties"]
    output["alarm"]["anyOf"] = [{"$ref": "#/$defs/Alarm"}, {"type": "array", "items": output["alarm"].pop("items")}]
    del output["alarm"]["type"]
    for table in [schema, *schema["$defs"].values()]:
        del table["title"]
        for key in table["properties"].values():
            key.pop("title", None)  # generated ("Deadline Ms"), it only repeats the key
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "edged.toml"} | schema
