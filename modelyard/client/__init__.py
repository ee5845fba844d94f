"""A typed client of Modelyard's HTTP interface, for the command line and for Python programs."""

from modelyard.client.account_answers import Invitation, Key, Me, NewKey, Tokens, User
from modelyard.client.answers import Access, Answer, Build, Deleted, Event, Health, LogLine, Model, ModelRow, Step, Upload, Version
from modelyard.client.bearer import TokenSource
from modelyard.client.calls import Client
from modelyard.client.refusals import ProblemError, UnreachableError

__all__ = [
    "Access",
    "Answer",
    "Build",
    "Client",
    "Deleted",
    "Event",
    "Health",
    "Invitation",
    "Key",
    "LogLine",
    "Me",
    "Model",
    "ModelRow",
    "NewKey",
    "ProblemError",
    "Step",
    "TokenSource",
    "Tokens",
    "UnreachableError",
    "Upload",
    "User",
    "Version",
]
