"""Output formats, one module each: the files of ``format_table``, the terminal, and MLflow tracking."""
