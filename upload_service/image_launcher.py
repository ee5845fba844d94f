"""The first program of a model's container: fills `/app` from the image, then becomes the app's server. Standard library only.

It travels in every image, and reads what to start from a file there (`start.json`), so that no word of an upload stands in the image's
own configuration. Below a read-only file system `/app` is a tmpfs; under a plain `docker run` it is a folder of the container; where it
cannot be written at all, the app runs from the read-only original.
"""

import errno
import json
import os
import sys

CODE, APP, START = "/srv/app", "/app", "/srv/start.json"
LARGEST_COPY_BYTES = 1024 * 1024
SHARE = 2
"""Copies take at most one part in so many of what is free: the rest is the app's own to write."""


def fill(code: str, app: str) -> None:
    """Every folder of the code made anew, its small files copied, its larger ones linked; what is there already stays."""
    room = os.statvfs(app)
    left = room.f_bavail * room.f_frsize // SHARE
    for here, folders, names in os.walk(code):
        into = app + here[len(code) :]
        for name in folders:
            os.makedirs(os.path.join(into, name), exist_ok=True)
        for name in names:
            source, target = os.path.join(here, name), os.path.join(into, name)
            if os.path.lexists(target):
                continue
            size = os.stat(source).st_size
            if size > min(LARGEST_COPY_BYTES, left):
                os.symlink(source, target)
                continue
            with open(source, "rb") as read, open(target, "xb") as written:
                written.write(read.read())
            left -= size


def main() -> None:
    """Fill the folder, then become the command."""
    with open(START, "rb") as file:
        start = json.load(file)
    app = APP
    try:
        fill(CODE, APP)
    except OSError as error:
        if error.errno not in {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT}:
            raise
        app = CODE
    variables = {**start["variables"], **os.environ}
    variables.pop("HOSTNAME", None)
    words = start["words"]
    if app != APP:
        variables["PYTHONPATH"] = ":".join(app + part[len(APP) :] for part in variables.get("PYTHONPATH", "").split(":") if part)
    os.chdir(os.path.join(app, start["folder"]))
    sys.stdout.flush()
    os.execvpe(words[0], words, variables)  # noqa: S606 - the words are those of the app's own command


if __name__ == "__main__":
    main()
