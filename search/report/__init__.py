"""Figures and the HTML report: pure functions of the files in a work directory."""

from search.report.cell import draw_cell, draw_file
from search.report.page import write
from search.report.pyramid import draw_pyramid, pyramid_names
from search.report.trellis import draw_trellis

__all__ = ["draw_cell", "draw_file", "draw_pyramid", "draw_trellis", "pyramid_names", "write"]
