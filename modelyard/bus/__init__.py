"""Events on their way: the protocol, and the bus that lives in the database."""
