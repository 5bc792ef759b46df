"""Each linear by one of several methods, so that the whole has a given size and loses least."""
