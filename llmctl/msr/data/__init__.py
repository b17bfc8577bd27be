"""Read interactions and items, filter and split them, and draw the candidate lists."""
