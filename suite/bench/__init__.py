"""`nowag-bench bench`: what the project computes, timed on the user's own machine against what that can do."""
