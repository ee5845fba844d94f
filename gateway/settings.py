"""What can be set at the front door; each model's own limits travel with its route."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """The limits that hold for every model alike.

    Args:
        sockets_at_once: The most sockets asked of the runner in one go, 1 to 64.
        idle_per_instance: How many idle connections are kept to one instance.
        connect_s: The time in which a listening app takes a connection.
        stall_s: How long a caller may neither send the body it announced nor take the answer it asked for.
        absent_s: How long `there is no such model` is remembered.
        answer_fields: The most header fields that an app may answer with.
        answer_head_bytes: The most bytes of such a head, interim answers included.
        message_bytes: The most bytes of one message of a WebSocket, which is held whole; a model's own `max_body` may be less.
        ask_again_s: How often it is asked whether the caller of an open WebSocket, or of a call under way, may still call.
    """

    sockets_at_once: int = 16
    idle_per_instance: int = 32
    connect_s: float = 5.0
    stall_s: float = 60.0
    absent_s: float = 1.0
    answer_fields: int = 64
    answer_head_bytes: int = 64 * 1024
    message_bytes: int = 16 * 1024 * 1024
    ask_again_s: float = 3.0
