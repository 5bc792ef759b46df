"""Figures: each a function to a data frame, and one that draws it."""
