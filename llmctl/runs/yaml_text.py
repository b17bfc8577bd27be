"""YAML 1.2 as people write it: 1e-5 is a number, `no` is a word, and a key that comes twice is refused.

ruamel.yaml reads and writes; this module keeps it to the core schema (YAML 1.2, section 10.3.2). Dates,
binary numbers and underscores in numbers, which ruamel.yaml also knows, stay text. What is written is quoted
where a reader of YAML 1.1 would take text for something else.
"""

from __future__ import annotations

import io
import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode
from ruamel.yaml.representer import SafeRepresenter
from ruamel.yaml.resolver import VersionedResolver, implicit_resolvers
from ruamel.yaml.tag import Tag

from llmctl.errors import LlmctlError
from llmctl.trust.limits import check_yaml

_PREFIX = "tag:yaml.org,2002:"
_NUMBER = re.compile(
    r"[-+]?(?:[0-9]+|(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|\.inf|\.Inf|\.INF)"
    r"|0o[0-7]+|0x[0-9a-fA-F]+|\.nan|\.NaN|\.NAN"
)
_LONGEST_NUMBER = 400  # characters; Python writes out no integer of more than 4,300 digits
_UNICODE_BREAKS = "\x85\u2028\u2029"


class BrokenYamlError(LlmctlError):
    """Text that is not the YAML that llmctl reads.

    Args:
        problem: What is wrong, on one line.
        line: Number of the line, from 1; None where the reader does not know it.
    """

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.problem, self.line = problem, line


class _Resolver(VersionedResolver):
    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        """The tag of a node; a plain scalar has one of the core schema."""
        tag = super().resolve(kind, value, implicit)
        if kind is not ScalarNode or not implicit[0]:
            return tag
        name = str(tag).removeprefix(_PREFIX)
        is_number = _NUMBER.fullmatch(value) is not None
        if name in ("timestamp", "value") or (name in ("int", "float") and not is_number):
            return Tag(suffix=f"{_PREFIX}str")
        if name == "str" and is_number:
            return Tag(suffix=f"{_PREFIX}float")  # .5e3, which ruamel.yaml takes for text
        return tag


class _Constructor(SafeConstructor):
    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """A mapping whose keys are text."""
        for key_node, _ in node.value if isinstance(node, MappingNode) else ():
            if str(key_node.tag) not in (f"{_PREFIX}str", f"{_PREFIX}merge"):
                key = getattr(key_node, "value", key_node.tag)
                raise ConstructorError(
                    None, None, f"the key {key} is not text; put it in quotes", key_node.start_mark
                )
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: Any) -> Any:
        """An integer of a sensible length."""
        if len(node.value) > _LONGEST_NUMBER:
            raise ConstructorError(
                None, None, f"a number of {len(node.value):,} digits; put it in quotes", node.start_mark
            )
        return super().construct_yaml_int(node)


_Constructor.add_constructor(f"{_PREFIX}int", _Constructor.construct_yaml_int)


class _Representer(SafeRepresenter):
    def ignore_aliases(self, data: Any) -> bool:
        """Write equal values out again: anchors are hard to read."""
        return True


def _represent_text(representer: Any, text: str) -> Any:
    style = None
    if any(mark in text for mark in _UNICODE_BREAKS):
        style = '"'  # other quotes would fold these line breaks into spaces
    elif _NUMBER.fullmatch(text) or any(pattern.match(text) for _, _, pattern, _ in implicit_resolvers):
        style = "'"
    return representer.represent_scalar(f"{_PREFIX}str", text, style=style)


def _represent_float(representer: Any, value: float) -> Any:
    node = representer.represent_float(value)
    if "e" in node.value and "." not in node.value:
        node.value = node.value.replace("e", ".0e")  # 1e-05 is text to a reader of YAML 1.1
    return node


_Representer.add_representer(str, _represent_text)
_Representer.add_representer(float, _represent_float)


def parse_yaml(text: str, name: str = "the YAML") -> Any:
    """Read YAML; only plain values are built.

    Args:
        text: YAML.
        name: What it is, for the message where it is too large or too deep.

    Raises:
        BrokenYamlError: The text is broken, or a mapping has a key twice or a key that is not text.
        UserError: It nests too deep, or means far more than it says.
    """
    check_yaml(text, name)
    yaml = YAML(typ="safe", pure=True)
    yaml.Resolver, yaml.Constructor = _Resolver, _Constructor
    try:
        return yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or str(error)
        if problem.startswith("but ") and error.context:
            problem = f"{error.context}, {problem}"
        raise BrokenYamlError(_one_line(problem), mark.line + 1 if mark else None) from error
    except YAMLError as error:
        raise BrokenYamlError(_one_line(error)) from error


def dump_yaml(value: Any) -> str:
    """Write plain values as YAML, keys in their own order."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.allow_unicode, yaml.width = True, 100
    stream = io.StringIO()
    yaml.dump(value, stream)
    return stream.getvalue()


def _one_line(error: Any) -> str:
    return " ".join(str(error).split())
