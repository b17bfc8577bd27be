"""The recommender: its prompt and training examples, its scores, and what it recommends to a user."""
