"""Reading YAML without surprises: duplicate keys and unknown encodings are refused in one line.

`1e-4` is a number; `on`, `off`, `yes` and `no` are text (YAML 1.2), which an option of type bool also accepts; `012`
and `1:30` are text as well, not an octal number and not 90; dates are text.
"""

import codecs
import re
from pathlib import Path
from typing import Any

import yaml

from shared.errors import UserError
from shared.text import one_line

MAX_VALUES = 100_000
"""Values in one file, with aliases expanded."""
MAX_DEPTH = 50
ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""(byte order mark, encoding); without a mark, UTF-8."""


class _Loader(yaml.SafeLoader):
    """Resolves plain scalars as YAML 1.2 does, and refuses a duplicate key."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    first, line = seen[key.value], key.start_mark.line + 1
                    where = f"in lines {first} and {line}" if line != first else f"in line {line}"
                    raise yaml.YAMLError(f"{key.value!r} appears twice, {where}; keep one")
                seen[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {}


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would parse as another type."""


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("merge", r"<<", "<"),
):
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def read_yaml(path: Path) -> Any:
    """The content of a YAML file, in UTF-8, or in UTF-16 or UTF-32 with a byte order mark. UserError in one line for
    invalid content; OSError for a file that cannot be opened."""
    content = Path(path).read_bytes()
    encoding = next((name for mark, name in ENCODINGS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{path}: not UTF-8 (line {line}); save it as UTF-8") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """The content of a YAML text. UserError, beginning with `where`, for invalid YAML, a duplicate key, and aliases
    that expand to too many values."""
    try:
        content = yaml.load(text, Loader=_Loader)
        _count(content, 0, [0])
    except RecursionError:
        raise UserError(f"{where}: nested too deep") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:  # the last two: an impossible key or number
        hint = "; indent with spaces, not with tabs" if "'\\t'" in str(error) else ""
        reason = one_line(error, 200).replace('in "<unicode string>", ', "in ")
        raise UserError(f"{where}: not valid YAML ({reason}){hint}") from None
    return content


def dump_yaml(value: Any) -> str:
    """YAML that `parse_yaml` reads back as the same value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)


def truth(value: Any) -> bool | None:
    """A boolean, or one written as on, off, yes or no; None for anything else."""
    words = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}
    return value if isinstance(value, bool) else words.get(value.lower()) if isinstance(value, str) else None


def _count(value: Any, depth: int, counted: list[int]) -> None:
    """YAMLError for too many values or levels, and for values of a type that JSON lacks."""
    counted[0] += 1
    if counted[0] > MAX_VALUES or depth > MAX_DEPTH:
        raise yaml.YAMLError(f"more than {MAX_VALUES} values, or {MAX_DEPTH} levels")
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for item in value:
            _count(item, depth + 1, counted)
    elif not isinstance(value, str | int | float | None):
        raise yaml.YAMLError(f"a value of type {type(value).__name__}")
