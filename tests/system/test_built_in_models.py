"""The built-in models through the front door, with the real weights that lie outside the repository."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from parts.checkpoints import APPS, MOBILENET, PHOTOS, needs_assets
from runtimes import RUNTIMES, served_by
from yard import Yard, until

from modelyard.client.zipping import zip_folder

pytestmark = [pytest.mark.slow, needs_assets]

READY_S = 240
"""Environments come from the package index, on a machine that does other things too."""
EXPECTED = {
    "bird.jpg": ("chickadee", 0.99),
    "cat.jpg": ("Egyptian cat", 0.79),
    "dog_segmentation.jpg": ("Samoyed", 0.97),
    "dragonfly.jpg": ("dragonfly", 0.97),
    "grace_hopper.jpg": ("military uniform", 0.92),
    "hot_dog.jpg": ("hotdog", 0.88),
    "missvickie_potato_chips.jpg": ("packet", 0.88),
    "parrot.jpg": ("macaw", 1.00),
    "sunflower.jpg": ("daisy", 0.99),
}
"""What ATTRIBUTION.md says of each photograph."""


def pull(data: Path, name: str, source: Path) -> None:
    """Bring weights here, as a user does."""
    words = [sys.executable, "-m", "modelyard", "models", "pull", name, "--from", str(source), "--data", str(data)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr


def answering(yard: Yard, model: str) -> None:
    """Wait until the model predicts."""

    def look() -> bool:
        answer = yard.http.get(f"/m/{model}/labels")
        assert answer.status_code in {200, 503}, answer.text
        return answer.status_code == 200

    until(look, f"{model} answers", READY_S)


def predict(yard: Yard, photo: str, model: str = "modelyard/mobilenet", **options: object) -> Any:
    """The answer about a photograph, asked as a form."""
    content = (PHOTOS / photo).read_bytes()
    answer = yard.http.post(f"/m/{model}/predict", files={"file": (photo, content, "image/jpeg")}, data=options)
    assert answer.status_code == 200, answer.text
    return answer.json()


def upload(yard: Yard, owner: str, name: str) -> None:
    """Upload the folder of MobileNet under this name, and wait until it is built: its packages may have to be fetched first."""
    with tempfile.TemporaryDirectory() as folder:
        zip_folder(APPS / "mobilenet", Path(folder, "mine.zip"))
        taken = yard.upload(owner, name, Path(folder, "mine.zip").read_bytes(), wait_s=0)
    assert taken.status_code == 202, taken.text

    def built() -> bool:
        row = yard.http.get(f"/models/{owner}/{name}").json()
        assert row["status"] != "failed", row
        return bool(row["status"] == "ready")

    until(built, f"{owner}/{name} is built", READY_S)


@pytest.fixture(scope="module", params=RUNTIMES)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, flags: tuple[str, ...]) -> Iterator[Yard]:
    """A server with MobileNet, whose weights came while it ran."""
    data = tmp_path_factory.mktemp("served") / "data"
    with served_by(request.param, data, flags) as yard:
        yard.start()
        before = yard.http.post("/m/modelyard/mobilenet/predict", content=b"?")
        assert (before.status_code, before.json()["mend"]) == (503, "Run on the server: modelyard models pull mobilenet")
        assert "modelyard models pull mobilenet" in yard.log()
        pull(data, "mobilenet", MOBILENET)
        answering(yard, "modelyard/mobilenet")
        yield yard


def test_nine_photographs_get_their_label_and_probability(served: Yard) -> None:
    for photo, (label, probability) in EXPECTED.items():
        answer = predict(served, photo, top_k=1)
        (best,) = answer["predictions"]
        assert best["label"].split(",")[0] == label, (photo, best)
        assert best["score"] == pytest.approx(probability, abs=0.02), (photo, best)
        assert (answer["model"], answer["version"]) == ("mobilenet", 1)
        assert set(answer["timing_ms"]) == {"decode", "preprocess", "infer"}


def test_a_photograph_that_no_class_fits_answers(served: Yard) -> None:
    answer = predict(served, "face.jpg")
    assert len(answer["predictions"]) == 5
    assert answer["image"] == {"width": 512, "height": 355}


def test_a_user_uploads_the_folder_under_a_name_of_their_own(served: Yard) -> None:
    upload(served, "testuser", "birds")
    assert predict(served, "bird.jpg", "testuser/birds", top_k=1)["predictions"][0]["label"] == "chickadee"


def test_without_weights_the_app_itself_names_the_command(own_yard: Yard) -> None:
    own_yard.start()
    upload(own_yard, "testuser", "birds")
    answer = own_yard.http.post("/m/testuser/birds/predict", content=(PHOTOS / "cat.jpg").read_bytes())
    assert (answer.status_code, answer.json()["code"]) == (503, "weights_missing")
    assert answer.json()["mend"] == "Run on the server: modelyard models pull mobilenet"
    # The instance that runs sees weights that come, and needs no start.
    pull(own_yard.data, "mobilenet", MOBILENET)
    answer = own_yard.http.post("/m/testuser/birds/predict", content=(PHOTOS / "cat.jpg").read_bytes())
    assert answer.status_code == 200, answer.text


def test_another_start_makes_no_new_version(own_yard: Yard) -> None:
    own_yard.data.mkdir(mode=0o700)
    pull(own_yard.data, "mobilenet", MOBILENET)
    own_yard.start()
    answering(own_yard, "modelyard/mobilenet")
    own_yard.end()
    own_yard.start()
    until(lambda: own_yard.log().count('"known": true') >= 1, "the second start has looked", 60)
    row = own_yard.http.get("/models/modelyard/mobilenet").json()
    assert (row["version"], row["status"], len(row["versions"])) == (1, "ready", 1)
    assert httpx2.get(own_yard.url + "/m/modelyard/mobilenet/health").status_code == 401
    assert json.loads((own_yard.data / "weights" / "mobilenet" / "weights.json").read_text())["source"] == str(MOBILENET)
