"""The sections of a report, one file each: a function from `Inputs` to a `Section`, or None."""

from shared.registry import Registry

_HERE = "stage2_fusion.report.sections"
SECTIONS = Registry(
    "section of a report",
    {
        "score": f"{_HERE}.score:score",
        "advice": f"{_HERE}.advice:advice",
        "dimensions": f"{_HERE}.dimensions:dimensions",
        "clips": f"{_HERE}.clips:clips",
        "damage": f"{_HERE}.damage:damage",
        "robustness": f"{_HERE}.robustness:robustness",
        "embeddings": f"{_HERE}.embedding_map:embedding_map",
        "curves": f"{_HERE}.curves:curves",
        "retrieval": f"{_HERE}.retrieval:retrieval",
        "systems": f"{_HERE}.systems:systems",
        "speed": f"{_HERE}.speed:speed",
        "data": f"{_HERE}.data:data",
        "configuration": f"{_HERE}.configuration:configuration",
    },
)
"""In the order of the page."""
