"""Define what can be trained: data, models, losses and scores."""
