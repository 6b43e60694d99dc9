"""Scripts that cut the small files of this repository from the data sets they come from."""
