"""The sections of a report, one file each: a function from `Inputs` to a `Section`, or None."""

from shared.registry import Registry

_HERE = "stage2_fusion.report.sections"
SECTIONS = Registry(
    "section of a report",
    {
        "score": f"{_HERE}.score:score",
    },
)
"""In the order of the page."""
