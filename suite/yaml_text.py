"""YAML as people write recipes in it: plain values, each key once, no tags, and nothing that grows."""

import re
from typing import Any, NoReturn

import yaml

from suite.errors import ConfigError

DEEPEST = 32  # mappings and lists within each other
MOST_VALUES = 100_000  # once every alias stands for what it names


def load_yaml(text: str, origin: str) -> Any:
    """What the text says. A fault is a ConfigError of one line that starts with `origin`."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{origin}: not YAML ({where}{error.problem or error.context})") from None
    except (yaml.YAMLError, ValueError) as error:  # the latter for a number of thousands of digits
        raise ConfigError(f"{origin}: not YAML ({' '.join(str(error).split())})") from None


class _Loader(yaml.SafeLoader):
    """`2:4` is a pattern, not a base-60 number, and `1e-4` is a number."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._values: dict[int, int] = {}  # how many there are in a finished node, by its identity

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """One node with all below it, refused where it would hurt to read it."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) not in (None, "!"):
            _refuse(event, f"there is a tag, {event.tag!r}; give plain values without tags")
        if self._depth == DEEPEST:
            _refuse(event, f"more than {DEEPEST} levels; write it flatter")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent) and id(node) not in self._values:
            _refuse(event, f"*{event.anchor} stands within what it names; write the values out")
        if isinstance(node, yaml.MappingNode) and not isinstance(event, yaml.AliasEvent):
            _refuse_repeated(node)
        self._values[id(node)] = 1 + sum(self._values[id(each)] for each in _below(node))
        if self._values[id(node)] > MOST_VALUES:
            _refuse(event, f"more than {MOST_VALUES:,} values, aliases written out; write fewer")
        return node


def _refuse(event: Any, problem: str) -> NoReturn:
    raise yaml.composer.ComposerError(None, None, problem, event.start_mark)


def _below(node: yaml.Node | None) -> list[yaml.Node]:
    """The nodes right below one, keys and values alike."""
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _refuse_repeated(node: yaml.MappingNode) -> None:
    """ComposerError for a key that a mapping has twice, of which YAML would silently take the last."""
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
            problem = f"the key {key.value!r} is there twice; keep one"
            raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
        seen.add((key.tag, str(key.value)))


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":int", ":float", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9][0-9_]*$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(\d[\d_]*\.[\d_]*([eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.\d+([eE][-+]?\d+)?|\.inf)$|^\.nan$"
    ),
    list("-+0123456789."),
)
