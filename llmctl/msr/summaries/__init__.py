"""Summaries of items and users by language models, and the cache that runs share."""
