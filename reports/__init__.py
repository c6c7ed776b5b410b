"""Reports: one model (``model.report``), statistics, charts, and one file for each format (``format_table``)."""
