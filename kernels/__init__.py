"""What a compressed weight is, and how to compute with it."""
