"""What all rows share: their base, and the types of the columns that many of them have."""

from sqlalchemy import BigInteger, Integer, MetaData, String
from sqlalchemy.orm import DeclarativeBase

ID = String(36)
NAME = String(40)
STATE = String(16)
SEQUENCE = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts by itself only for its own INTEGER keys."""

Json = dict[str, object]


class Row(DeclarativeBase):
    """The base of all rows; names every constraint, so that migrations can speak of it."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
