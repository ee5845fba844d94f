"""Modelyard: upload a zip of a model app, get a live, authenticated prediction endpoint."""

__version__ = "0.1.0"
