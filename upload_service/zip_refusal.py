"""What the user of a refused zip is told."""

from modelyard.domain.errors import Invalid

_MENDS = {
    "archive_path": "Rename it and zip the folder again.",
    "archive_type": "Zip plain files and folders, without links and without a password.",
    "archive_corrupt": "Zip the folder again, with an ordinary zip tool.",
    "archive_bomb": "Zip only what the app needs; leave out virtual environments and data sets.",
    "archive_empty": "Zip the folder that holds the app's files.",
}


_SHOWN = 200


def refusal(code: str, message: str, entry: str | None = None) -> Invalid:
    """The error, for the caller to raise, of the whole zip or of one entry."""
    if entry is None:
        return Invalid(code, message, _MENDS[code])
    shown = repr(entry[:_SHOWN])
    return Invalid(code, f"{shown}: {message}", _MENDS[code], errors=[{"entry": shown, "message": message}])
