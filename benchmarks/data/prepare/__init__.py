"""Cut the small data files of this repository from their sources."""
