"""Reports of runs: one self-contained HTML file, and its figures as PNG and SVG."""

from stage2_fusion.report.sections import SECTIONS
from stage2_fusion.report.write import Report, write_report

__all__ = ["SECTIONS", "Report", "write_report"]
