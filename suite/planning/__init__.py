"""What a recipe would do and take, before any of it is done."""
