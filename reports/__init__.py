"""Rows first, then ink."""
