"""Search for the settings of methods: trials are ordinary cells, judged by cheaper measures first."""
