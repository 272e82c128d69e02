"""What jsonargparse says about a value of the wrong type, reworded like our own messages."""

import re

from shared.text import one_line

TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "list": "a list, such as [a, b]",
    "tuple": "a list, such as [a, b]",
    "dict": "options, such as {name: value}",
    "NoneType": "null",
}


def plain_message(message: object, prefix: str = "") -> str:
    """`--lr is abc: expected a number` for a value of the wrong type; any other message on one line. prefix: before
    the name of an option."""
    line = one_line(message)
    key = re.match(r'Parser key "([^"]+)":? ?', line)
    value = re.search(r"(?:.*Given value|.*?Got value): (.*?)(?: Subclass types expect| - Expected|$)", line)
    if not key or not value:
        return line
    allowed = [TYPES[kind] for kind in re.findall(r"Expected (?:a )?<class '(\w+)'>", line) if kind in TYPES]
    for choices in re.findall(r"typing\.Literal\[(.*?)\]", line):
        allowed.append(f"one of {choices.replace(chr(39), '')}")
    for base, limits in re.findall(r"typing\.Annotated\[(int|float), (.*?)\]", line):
        allowed = [f"{words} {limits}" if words == TYPES[base] else words for words in allowed]
    if "Not a valid subclass" in line or "dot import path" in line:
        allowed.insert(0, TYPES["dict"])
    if not allowed:
        return line
    return f"{prefix}{key[1]} is {value[1][:200]}: expected {' or '.join(dict.fromkeys(allowed))}"
