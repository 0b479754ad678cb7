"""Whole jobs that make one artefact. The command line, the web page and the Python API call the same ones."""
