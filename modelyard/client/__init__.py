"""A typed client of Modelyard's HTTP interface, for the command line and for Python programs."""

from modelyard.client.answers import Answer, Build, Deleted, Health, LogLine, Model, ModelRow, Step, Upload, Version
from modelyard.client.calls import Client
from modelyard.client.refusals import ProblemError, UnreachableError

__all__ = [
    "Answer",
    "Build",
    "Client",
    "Deleted",
    "Health",
    "LogLine",
    "Model",
    "ModelRow",
    "ProblemError",
    "Step",
    "UnreachableError",
    "Upload",
    "Version",
]
