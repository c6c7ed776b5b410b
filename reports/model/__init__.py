"""The report model (``report.Report``): verdict, statistics and table rows, computed once for all formats."""
