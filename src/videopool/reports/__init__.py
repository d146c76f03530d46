"""Reports: a study's page, tables and figures."""

from videopool.reports.cells import read_spreadsheet
from videopool.reports.page import samples_html
from videopool.reports.tables import markdown_tables

__all__ = ["markdown_tables", "read_spreadsheet", "samples_html"]
