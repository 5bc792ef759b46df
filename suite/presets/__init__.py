"""Published tables as recipes: `reproduce: NAME` takes from NAME.yaml whatever a recipe does not say itself.

The figures to compare with are in reports/published.csv under the same names.
"""
