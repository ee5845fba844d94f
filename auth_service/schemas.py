"""The bodies that the auth service answers."""

from pydantic import BaseModel


class FirstLink(BaseModel):
    """A link that signs one browser in, once."""

    url: str
