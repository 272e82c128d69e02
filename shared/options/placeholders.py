"""The placeholder for the value of an option in its help."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Placeholder:
    """`data: Annotated[Path, Placeholder("FEATURES")]` appears as `--data FEATURES`; by default the type decides."""

    text: str
    usual: bool = False
    """Shown in the usage line even though it is optional."""
    names: str = ""
    """Import path of the registry with the names (`shared.layouts.registry:LAYOUTS`), for completion."""


@dataclass(frozen=True)
class WithCommas:
    """`external: Annotated[list[str], WithCommas()]`: a comma is part of a value and does not separate two."""
