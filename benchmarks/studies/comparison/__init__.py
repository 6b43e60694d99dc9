"""A comparison of methods: cases, a contest with tuning, tables, figures and a report."""
