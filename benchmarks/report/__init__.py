"""Intervals, tables and figures of a study's rows."""
