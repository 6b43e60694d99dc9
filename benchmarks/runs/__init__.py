"""Train one run or many at once, measure the trained models, and keep the rows in a file."""
