"""What an app's last words mean."""

import pytest

from upload_service.crash_reading import read_crash


@pytest.mark.parametrize(
    ("output", "code", "names"),
    [
        ("Traceback ...\nModuleNotFoundError: No module named 'sklearn.svm'\n", "missing_package", "sklearn"),
        ("ImportError: cannot import name 'soft_unicode' from 'markupsafe' (/env/x)", "import_failed", "soft_unicode"),
        ("ImportError: cannot import name 'FastAPI' from 'fastapi' (/app/fastapi.py)", "import_failed", "own fastapi.py"),
        (
            "ImportError: cannot import name 'Flask' from partially initialized module 'flask' (/app/src/flask.py) (most likely ...)",
            "import_failed",
            "own flask.py",
        ),
        ("socket.gaierror: [Errno -3] Temporary failure in name resolution", "needs_network", "network"),
        ("OSError: [Errno 30] Read-only file system: '/usr/cache'", "read_only", "read-only"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'model.pkl'", "missing_file", "model.pkl"),
    ],
)
def test_a_known_cause_is_named_with_its_mend(output: str, code: str, names: str) -> None:
    reading = read_crash(output)
    assert reading is not None
    assert (reading.code, names in reading.message) == (code, True)
    assert reading.mend.endswith(".")


def test_an_unknown_cause_is_left_to_the_log() -> None:
    assert read_crash("Segmentation fault") is None
