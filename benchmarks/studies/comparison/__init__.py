"""Compare methods of training: cases, tuning, final runs, tables, figures and a report."""
