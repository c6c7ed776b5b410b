"""The report model: verdict, facts and timelines, computed once for all formats."""
