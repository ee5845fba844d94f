"""The built-in model apps over small networks made here: every way to send an image, options, problems, the protocol, what they count."""

import base64
import json
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from parts.checkpoints import CLIP_WIDTH, write_clip, write_mobilenet
from parts.model_apps import RunningApp, pulled, running
from parts.pictures import encoded, png, scene, turned
from PIL import Image

PICTURE = encoded(scene())
FORM = {"file": ("scene.png", PICTURE, "image/png")}
LABELS = ["a cat", "red", "blue"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("weights")
    for name, write in (("mobilenet", write_mobilenet), ("clip", write_clip)):
        pulled(base / "weights", name, write(base / name))
    return base / "weights"


@pytest.fixture(scope="module")
def mobilenet(weights: Path) -> Iterator[RunningApp]:
    with running("mobilenet", weights) as app:
        yield app


@pytest.fixture(scope="module")
def clip(weights: Path) -> Iterator[RunningApp]:
    with running("clip", weights) as app:
        yield app


@pytest.fixture(params=["mobilenet", "clip"])
def either(request: pytest.FixtureRequest) -> RunningApp:
    """One app, then the other: what both promise."""
    app: RunningApp = request.getfixturevalue(request.param)
    return app


def options(app: RunningApp) -> dict[str, str]:
    """What the app cannot do without."""
    return {"labels": ",".join(LABELS)} if "clip" in app.http.get("/health").text else {}


def told(answer: httpx2.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def scores(app: RunningApp, picture: bytes) -> list[float]:
    """The score of every label for this picture, in the order of the labels."""
    answer = told(app.http.post("/predict", content=picture, params={**options(app), "top_k": 100}))
    return [each["score"] for each in sorted(answer["predictions"], key=lambda each: each["index"])]


def problem(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    document: dict[str, Any] = answer.json()
    assert document["code"] == code, document
    assert document["detail"]
    assert document["mend"]
    return document


def test_an_image_comes_as_a_form_as_the_body_or_as_base64(either: RunningApp) -> None:
    packed, asked = base64.b64encode(PICTURE).decode(), options(either)
    ways = [
        {"files": FORM, "data": asked},
        {"content": PICTURE, "params": asked, "headers": {"content-type": "image/png"}},
        {"content": PICTURE, "params": asked},
        {"content": PICTURE, "params": asked, "headers": {"content-type": "application/x-www-form-urlencoded"}},
        {"json": {"image": packed, **asked}},
        {"json": {"image": f"data:image/png;base64,{packed}", **asked}},
    ]
    answers = [told(either.http.post("/predict", **way)) for way in ways]
    for answer in answers:
        assert set(answer) == {"model", "version", "predictions", "image", "timing_ms"}
        assert answer["image"] == {"width": 96, "height": 64}
        assert set(answer["timing_ms"]) == {"decode", "preprocess", "infer"}
        assert all(set(each) == {"label", "index", "score"} for each in answer["predictions"])
    assert len({json.dumps(answer["predictions"]) for answer in answers}) == 1


def test_several_images_are_answered_in_their_order_and_a_bad_one_alone_fails(either: RunningApp) -> None:
    asked, other = options(either), encoded(scene(40, 90))
    files = [("file", ("a", PICTURE)), ("file", ("b", b"no picture")), ("file", ("c", other))]
    answer = told(either.http.post("/predict", files=files, data=asked))
    first, second, third = answer["results"]
    assert (first["image"], third["image"]) == ({"width": 96, "height": 64}, {"width": 40, "height": 90})
    assert second["error"]["code"] == "image_unreadable"
    packed = [base64.b64encode(each).decode() for each in (PICTURE, other)]
    listed = told(either.http.post("/predict", json={"images": packed, **asked}))["results"]
    assert [each["predictions"] for each in listed] == [first["predictions"], third["predictions"]]
    assert len(told(either.http.post("/predict", json={"images": packed[:1], **asked}))["results"]) == 1


def test_the_best_come_first_and_those_below_the_threshold_not_at_all(mobilenet: RunningApp) -> None:
    every = told(mobilenet.http.post("/predict", content=PICTURE, params={"top_k": 5}))["predictions"]
    assert [each["score"] for each in every] == sorted((each["score"] for each in every), reverse=True)
    assert sum(each["score"] for each in every) == pytest.approx(1, abs=1e-4)
    assert told(mobilenet.http.post("/predict", content=PICTURE, params={"top_k": 2}))["predictions"] == every[:2]
    limit = (every[1]["score"] + every[2]["score"]) / 2
    above = told(mobilenet.http.post("/predict", files=FORM, data={"confidence_threshold": str(limit)}))["predictions"]
    assert above == [each for each in every if each["score"] >= limit]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_is_seen_the_right_way_up(either: RunningApp, orientation: int) -> None:
    answer = told(either.http.post("/predict", content=turned(scene(), orientation), params=options(either)))
    assert answer["image"] == {"width": 96, "height": 64}
    assert scores(either, turned(scene(), orientation)) == pytest.approx(scores(either, turned(scene(), 1)), abs=0.02)


def test_every_sort_of_picture_is_the_same_picture(either: RunningApp) -> None:
    grey = scene().convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    clear = scene().convert("RGBA")
    palette = Image.new("P", (96, 64), 1)
    palette.putpalette([255, 255, 255, 10, 200, 30])
    later = Image.new("RGB", (96, 64), "red")
    alike = {
        "png with alpha": (encoded(clear), encoded(scene())),
        "webp": (encoded(scene(), "WEBP", lossless=True), encoded(scene())),
        "greyscale": (encoded(grey), encoded(grey.convert("RGB"))),
        "16 bits": (encoded(deep), encoded(grey)),
        "cmyk": (encoded(scene().convert("CMYK"), "JPEG", quality=98), encoded(scene(), "JPEG", quality=98)),
        "palette": (encoded(palette), encoded(Image.new("RGB", (96, 64), (10, 200, 30)))),
        "animated gif": (
            encoded(palette, "GIF", save_all=True, append_images=[later] * 3),
            encoded(Image.new("RGB", (96, 64), (10, 200, 30))),
        ),
        "nothing but transparency": (encoded(Image.new("RGBA", (96, 64), (255, 0, 0, 0))), encoded(Image.new("RGB", (96, 64), "white"))),
    }
    for sort, (odd, plain) in alike.items():
        assert scores(either, odd) == pytest.approx(scores(either, plain), abs=0.03), sort


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 422, "no_image"),
        (b"no picture", 422, "image_unreadable"),
        (PICTURE[:200], 422, "image_unreadable"),
        (png(8_000, 8_000), 413, "too_many_pixels"),
        (png(1 << 20, 1), 413, "too_many_pixels"),
        (encoded(scene(), "BMP"), 422, "image_unreadable"),
        (bytes(20 * 1024 * 1024 + 1), 413, "image_too_large"),
        (bytes(32 * 1024 * 1024 + 1), 413, "body_too_large"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else str(value),
)
def test_what_is_no_image_or_too_large_is_refused_in_words(either: RunningApp, content: bytes, status: int, code: str) -> None:
    problem(either.http.post("/predict", content=content, params=options(either)), status, code)


def test_a_body_that_does_not_say_its_length_is_refused_once_it_is_too_large(either: RunningApp) -> None:
    endless = (bytes(1024 * 1024) for _ in range(64))
    try:
        answer = either.http.post("/predict", content=endless, params=options(either))
    except httpx2.TransportError:
        return  # hung up on while it was still sending
    problem(answer, 413, "body_too_large")


@pytest.mark.parametrize(
    ("call", "status", "code"),
    [
        ({"json": {"image": "?"}}, 422, "invalid_request"),
        ({"json": {"image": 5}}, 422, "invalid_request"),
        ({"json": {"images": "x"}}, 422, "invalid_request"),
        ({"json": ["x"]}, 422, "invalid_request"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "json_unreadable"),
        ({"content": b"[" * 100_000, "headers": {"content-type": "application/json"}}, 400, "json_unreadable"),
        ({"content": b"x", "headers": {"content-type": "text/html"}}, 415, "type_unknown"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "form_unreadable"),
        ({"files": [("file", ("x", PICTURE))] * 33}, 413, "too_many_images"),
        ({"content": PICTURE, "params": {"top_k": "0"}}, 422, "invalid_request"),
        ({"content": PICTURE, "params": {"top_k": "x"}}, 422, "invalid_request"),
        ({"content": PICTURE, "params": {"confidence_threshold": "2"}}, 422, "invalid_request"),
        ({"content": PICTURE, "params": {"confidence_threshold": "nan"}}, 422, "invalid_request"),
    ],
)
def test_calls_that_cannot_be_read_are_told_why(mobilenet: RunningApp, call: dict[str, Any], status: int, code: str) -> None:
    problem(mobilenet.http.post("/predict", **call), status, code)


def test_the_answers_of_many_at_once_are_each_their_own(mobilenet: RunningApp) -> None:
    pictures = [encoded(Image.new("RGB", (20, 20), (number * 8, 255 - number * 8, 128))) for number in range(24)]
    alone = [scores(mobilenet, picture) for picture in pictures]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda picture: scores(mobilenet, picture), pictures))
    for one, other in zip(alone, together, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_labels_and_metrics_tell_what_there_is(mobilenet: RunningApp) -> None:
    assert told(mobilenet.http.get("/labels"))["labels"] == [f"thing {number}" for number in range(5)]
    before = counted(mobilenet)
    told(mobilenet.http.post("/predict", content=PICTURE))
    mobilenet.http.post("/predict", content=b"?")
    after = counted(mobilenet)
    grown = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    assert grown['model_requests_total{asked="predict",status="200"}'] == 1
    assert grown['model_requests_total{asked="predict",status="422"}'] == 1
    assert grown['model_images_total{outcome="answered"}'] == grown['model_images_total{outcome="refused"}'] == 1
    assert grown["model_batch_size_count"] == grown["model_batch_size_sum"] == 1
    assert grown['model_request_seconds_count{asked="predict"}'] == 2


def counted(app: RunningApp) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in app.http.get("/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines if "_created" not in name}


def test_the_version_is_the_platform_s(either: RunningApp) -> None:
    headers = {"x-modelyard-version": "7"}
    answer = told(either.http.post("/predict", content=PICTURE, params=options(either), headers=headers))
    assert answer["version"] == 7
    assert told(either.http.post("/predict", content=PICTURE, params=options(either)))["version"] is None


def test_clip_takes_labels_in_every_form(clip: RunningApp) -> None:
    forms: list[dict[str, Any]] = [
        {"json": {"image": base64.b64encode(PICTURE).decode(), "labels": LABELS}},
        {"files": FORM, "data": {"labels": ",".join(LABELS)}},
        {"files": FORM, "data": {"labels": "\n".join(LABELS)}},
        {"files": FORM, "data": {"labels": LABELS}},
        {"files": FORM, "data": {"labels": json.dumps(LABELS)}},
        {"content": PICTURE, "params": {"labels": LABELS}},
    ]
    answers = [told(clip.http.post("/predict", **form))["predictions"] for form in forms]
    assert sorted(each["label"] for each in answers[0]) == sorted(LABELS)
    assert sum(each["score"] for each in answers[0]) == pytest.approx(1, abs=1e-4)
    assert all(answer == answers[0] for answer in answers)


def test_clip_s_template_makes_the_prompts(clip: RunningApp) -> None:
    asked = {"labels": LABELS, "top_k": "3"}
    usual = told(clip.http.post("/predict", files=FORM, data=asked))
    same = told(clip.http.post("/predict", files=FORM, data={**asked, "prompt_template": "a photo of a {}"}))
    other = told(clip.http.post("/predict", files=FORM, data={**asked, "prompt_template": "{}"}))
    assert usual["predictions"] == same["predictions"] != other["predictions"]
    for wrong in ("no place", "{} {}", "{0}", "{x.__class__}"):
        problem(clip.http.post("/predict", files=FORM, data={**asked, "prompt_template": wrong}), 422, "invalid_request")


@pytest.mark.parametrize("labels", [None, "", " , ", "[", "[1]", json.dumps([str(number) for number in range(1001)])])
def test_clip_refuses_labels_that_are_none(clip: RunningApp, labels: str | None) -> None:
    problem(clip.http.post("/predict", files=FORM, data={} if labels is None else {"labels": labels}), 422, "invalid_request")


def test_clip_embeds_images_and_texts_as_unit_vectors(clip: RunningApp) -> None:
    packed = base64.b64encode(PICTURE).decode()
    answer = told(clip.http.post("/embed", json={"images": [packed, packed], "texts": ["red", "blue", "red"]}))
    kinds = [each["object"] for each in answer["embeddings"]]
    rows = np.asarray([each["embedding"] for each in answer["embeddings"]])
    assert (kinds, answer["dimensions"], rows.shape) == (["image"] * 2 + ["text"] * 3, CLIP_WIDTH, (5, CLIP_WIDTH))
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    assert rows[0] == pytest.approx(rows[1], abs=1e-6)
    assert (rows[2] == rows[4]).all()
    assert (rows[2] != rows[3]).any()
    one = told(clip.http.post("/embed", files=FORM, data={"text": "red"}))["embeddings"]
    assert one[1]["embedding"] == answer["embeddings"][2]["embedding"]
    problem(clip.http.post("/embed", json={}), 422, "nothing_to_embed")
    problem(clip.http.post("/embed", json={"texts": [" "]}), 422, "invalid_request")
    problem(clip.http.post("/embed", json={"texts": ["x" * 1001]}), 422, "invalid_request")
    problem(clip.http.post("/embed", json={"texts": ["x"] * 1001}), 413, "too_many_texts")


def test_a_text_longer_than_the_network_reads_is_cut_as_its_tokenizer_says(clip: RunningApp) -> None:
    answer = told(clip.http.post("/embed", json={"texts": ["cat " * 14, "cat " * 40, "cat"]}))["embeddings"]
    assert answer[0]["embedding"] == pytest.approx(answer[1]["embedding"], abs=1e-6)
    assert answer[0]["embedding"] != answer[2]["embedding"]


def test_clip_answers_in_openai_s_shape(clip: RunningApp) -> None:
    picture = f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"
    answer = told(clip.http.post("/v1/embeddings", json={"input": ["a red cat", picture], "model": "clip"}))
    assert (answer["object"], answer["model"], [each["index"] for each in answer["data"]]) == ("list", "clip", [0, 1])
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] == 5
    own = told(clip.http.post("/embed", json={"texts": ["a red cat"], "image": base64.b64encode(PICTURE).decode()}))["embeddings"]
    assert [each["embedding"] for each in answer["data"]] == [own[1]["embedding"], own[0]["embedding"]]
    packed = told(clip.http.post("/v1/embeddings", json={"input": "a red cat", "encoding_format": "base64"}))["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(packed), "<f4") == pytest.approx(own[1]["embedding"], abs=1e-7)
    for wrong in ({}, {"input": []}, {"input": [1, 2]}, {"input": "x", "dimensions": 7}, {"input": "x", "encoding_format": "hex"}):
        problem(clip.http.post("/v1/embeddings", json=wrong), 422, "invalid_request")


def test_the_open_inference_protocol_describes_and_infers(either: RunningApp) -> None:
    name = either.http.get("/health").json()["model"]
    assert told(either.http.get("/v2/health/live")) == {"live": True}
    assert told(either.http.get("/v2/health/ready"))["ready"] is True
    assert told(either.http.get("/v2"))["extensions"] == ["binary_tensor_data"]
    described = told(either.http.get(f"/v2/models/{name}"))
    assert {"name": "image", "datatype": "BYTES", "shape": [-1]} in described["inputs"]
    assert told(either.http.get(f"/v2/models/{name}/ready"))["ready"] is True
    packed = base64.b64encode(PICTURE).decode()
    asked = {"id": "x", "inputs": [{"name": "image", "datatype": "BYTES", "shape": [2], "data": [packed, packed]}]}
    answer = told(either.http.post(f"/v2/models/{name}/infer", json=asked))
    output = answer["outputs"][0]
    assert (answer["id"], answer["model_name"], output["datatype"], output["shape"][0]) == ("x", name, "FP32", 2)
    assert len(output["data"]) == 2 * output["shape"][1]


def test_tensors_travel_as_binary_in_both_directions(mobilenet: RunningApp) -> None:
    pixels = np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype("<f4")
    told_input = {"name": "pixel_values", "datatype": "FP32", "shape": [3, 3, 32, 32], "parameters": {"binary_data_size": pixels.nbytes}}
    head = json.dumps({"inputs": [told_input], "parameters": {"binary_data_output": True}}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    answer = mobilenet.http.post("/v2/models/mobilenet/infer", content=head + pixels.tobytes(), headers=headers)
    length = int(answer.headers["inference-header-content-length"])
    outputs = json.loads(answer.content[:length])["outputs"]
    assert [(each["name"], each["shape"], each["parameters"]["binary_data_size"]) for each in outputs] == [
        ("logits", [3, 5], 60),
        ("probabilities", [3, 5], 60),
    ]
    chances = np.frombuffer(answer.content[length + 60 :], "<f4").reshape(3, 5)
    assert chances.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-5)


_IMAGE = {"name": "image", "datatype": "BYTES", "shape": [1]}


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"inputs": []},
        {"inputs": [{**_IMAGE, "name": "other"}]},
        {"inputs": [{**_IMAGE, "datatype": "FP32"}]},
        {"inputs": [{**_IMAGE, "shape": [2], "data": ["eA=="]}]},
        {"inputs": [{**_IMAGE, "shape": [0], "data": []}]},
        {"inputs": [{**_IMAGE, "shape": [1 << 40], "data": []}]},
        {"inputs": [{**_IMAGE, "data": ["?"]}]},
        {"inputs": [{**_IMAGE, "parameters": {"binary_data_size": 1 << 40}}]},
        {"inputs": [{"name": "pixel_values", "datatype": "FP32", "shape": [1, 3, 32, 32], "data": [1, 2]}]},
        {"inputs": [{"name": "pixel_values", "datatype": "FP32", "shape": [1, 3, 64, 64], "data": []}]},
        {"inputs": [{**_IMAGE, "data": [base64.b64encode(PICTURE).decode()]}], "outputs": [{"name": "other"}]},
        {"inputs": [{**_IMAGE, "data": ["bm8gcGljdHVyZQ=="]}]},
    ],
)
def test_inference_requests_that_do_not_fit_are_told_why(mobilenet: RunningApp, asked: dict[str, Any]) -> None:
    answer = mobilenet.http.post("/v2/models/mobilenet/infer", json=asked)
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]
    assert mobilenet.http.post("/v2/models/other/infer", json=asked).status_code == 404


def test_elements_of_bytes_stand_behind_their_length(mobilenet: RunningApp) -> None:
    for tail, status in ((struct.pack("<I", len(PICTURE)) + PICTURE, 200), (struct.pack("<I", 1 << 31) + PICTURE, 422), (b"\1", 422)):
        told_input = {**_IMAGE, "parameters": {"binary_data_size": len(tail)}}
        head = json.dumps({"inputs": [told_input]}).encode()
        headers = {"inference-header-content-length": str(len(head))}
        assert mobilenet.http.post("/v2/models/mobilenet/infer", content=head + tail, headers=headers).status_code == status


@pytest.mark.parametrize("name", ["mobilenet", "clip"])
def test_weights_that_come_while_it_runs_are_taken_and_broken_ones_told(tmp_path: Path, name: str) -> None:
    checkpoint = {"mobilenet": write_mobilenet, "clip": write_clip}[name](tmp_path / "checkpoint")
    (tmp_path / "weights").mkdir()
    with running(name, tmp_path / "weights") as app:
        missing = problem(app.http.post("/predict", content=PICTURE, params={"labels": "a"}), 503, "weights_missing")
        assert missing["mend"] == f"Run on the server: modelyard models pull {name}"
        assert app.http.get("/health").json()["weights"] == "missing"
        assert app.http.get("/v2/health/ready").status_code == 503
        folder = pulled(tmp_path / "weights", name, checkpoint) / name
        graphs = [path for path in folder.glob("*/*.onnx") if path.name != "text.onnx"]
        kept = [path.read_bytes() for path in graphs]
        graphs[0].write_bytes(b"no graph")
        problem(app.http.post("/predict", content=PICTURE, params={"labels": "a"}), 503, "weights_unusable")
        graphs[0].write_bytes(kept[0])
        told(app.http.post("/predict", content=PICTURE, params={"labels": "a"}))
        assert app.http.get("/health").json()["weights"] == "loaded"
