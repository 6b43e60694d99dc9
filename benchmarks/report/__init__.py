"""Turn rows of a study into intervals, tables and figures."""
