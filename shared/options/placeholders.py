"""What stands for the value of an option in its help."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Placeholder:
    """`data: Annotated[Path, Placeholder("FEATURES")]` is shown as `--data FEATURES`; by default the type decides."""

    text: str
    usual: bool = False
    """Shown in the usage line although it is not required."""
    names: str = ""
    """Import path of a registry that knows the names (`shared.layouts.registry:LAYOUTS`), for completion."""


@dataclass(frozen=True)
class WithCommas:
    """`external: Annotated[list[str], WithCommas()]`: a comma is part of a value, not between two."""
