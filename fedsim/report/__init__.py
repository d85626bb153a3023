"""The report: a document that a team can put on the table of a design review."""

from fedsim.report.document import write_report

__all__ = ["write_report"]
