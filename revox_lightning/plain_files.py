"""JSON and YAML of unknown origin as plain types: no objects, no references, and no more of anything than there can be.

Whatever is wrong with a file is a ValueError of one line (or the system's OSError), so that who reads it says where.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

_DEEPEST = 64
_LARGEST_INTEGER = 2**63
_MOST_DIGITS = 300
_MOST_JSON_BYTES = 64 * 2**20
_MOST_YAML_BYTES = 2**16  # eight times the longest config; PyYAML takes half a second for it


class _PlainLoader(yaml.SafeLoader):
    """YAML's plain types without anchors, which make a few lines as large as one likes; a date stays text."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, form) for tag, form in found if tag != "tag:yaml.org,2002:timestamp"]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it refers to a part of itself (*name)")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        if isinstance(node, yaml.MappingNode) and len({n.value for n, _ in node.value if _is_text(n)}) < sum(
            _is_text(n) for n, _ in node.value
        ):
            raise ValueError("it says one name twice")
        return super().construct_mapping(node, deep)


def _is_text(node: Any) -> bool:
    return isinstance(node, yaml.ScalarNode)


def read_yaml(path: Path, most_bytes: int = _MOST_YAML_BYTES) -> Any:
    """The content of a YAML file. Raises OSError, or ValueError with one line on what is wrong."""
    return parse_yaml(_text(path, most_bytes))


def parse_yaml(text: str) -> Any:
    """The same of text at hand."""
    try:
        return _checked(yaml.load(text, _PlainLoader))
    except (yaml.YAMLError, ValueError, TypeError, LookupError, OverflowError, AttributeError) as error:
        raise ValueError(_line(error)) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json(path: Path, most_bytes: int = _MOST_JSON_BYTES) -> Any:
    """The content of a JSON file. Raises OSError, or ValueError with one line on what is wrong."""
    try:
        return _checked(json.loads(_text(path, most_bytes), parse_int=_number), largest_integer=None)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValueError as error:
        raise ValueError(_line(error)) from error


def _number(text: str) -> int | float:
    """A whole number; one that no float holds becomes infinite, as 1e999 does."""
    return int(text) if len(text) < _MOST_DIGITS else float(text)


def _text(path: Path, most_bytes: int) -> str:
    if path.stat().st_size > most_bytes:
        raise ValueError(f"it is larger than {most_bytes / 2**10:g} kB")
    return path.read_text(encoding="utf-8")


def _checked(content: Any, largest_integer: int | None = _LARGEST_INTEGER, depth: int = 0) -> Any:
    """Raises ValueError for what cannot be written again: text that is no text, numbers without end, a deep nest."""
    if depth > _DEEPEST:
        raise ValueError("it is nested too deeply")
    if isinstance(content, dict):
        for name, value in content.items():
            _checked(name, largest_integer, depth + 1)
            _checked(value, largest_integer, depth + 1)
    elif isinstance(content, (list, tuple, set)):
        for value in content:
            _checked(value, largest_integer, depth + 1)
    elif isinstance(content, str):
        content.encode()  # a lone half of a surrogate pair cannot be
    elif isinstance(content, int) and largest_integer is not None and abs(content) > largest_integer:
        raise ValueError("it holds a whole number of more than 64 bits")
    return content


def _line(error: BaseException) -> str:
    if isinstance(error, UnicodeError):
        return "it is not text in UTF-8"
    return (str(error) or type(error).__name__).strip().splitlines()[0].rstrip(".:")[:200]
