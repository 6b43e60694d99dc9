"""What is trained: data, a model, its loss, and how it is scored."""
