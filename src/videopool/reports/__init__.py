"""Reports: a study's page, tables and figures."""

from videopool.reports.page import SAMPLES, samples_html, study_page
from videopool.reports.points import groups_of, other_groups
from videopool.reports.question import study_question
from videopool.reports.tables import latex_tables, markdown_tables

__all__ = [
    "SAMPLES",
    "groups_of",
    "latex_tables",
    "markdown_tables",
    "other_groups",
    "samples_html",
    "study_page",
    "study_question",
]
