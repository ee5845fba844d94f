"""The built-in models beside the library that their checkpoints come from: the same numbers, and a CLIP that was trained here."""

import json
import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from parts.checkpoints import (
    CLIP_LONGEST,
    CLIP_TEXT,
    CLIP_VISION,
    CLIP_WIDTH,
    MOBILENET,
    PHOTOS,
    needs_assets,
    write_clip,
    write_clip_config,
    write_mobilenet,
    write_tokenizer,
)
from parts.model_apps import RunningApp, pulled, running
from parts.pictures import encoded, scene
from PIL import Image, ImageDraw, ImageOps
from runtimes import RUNTIMES, served_by
from yard import until

from modelyard.domain.plan import GIB, MIB

pytestmark = [
    pytest.mark.vision,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

CLOSE = 1e-4
VIT_B_32 = 151_277_313
"""Parameters of CLIP ViT-B/32."""
COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 70, 220), "yellow": (230, 210, 50)}
SHAPES = ("circle", "square", "triangle")
ENOUGH = 0.9
"""The part of fresh pictures that it must label rightly; at random it would be a twelfth."""
STEPS, BATCH = 1200, 36


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Torch in one thread, as an instance has it."""
    import torch  # noqa: PLC0415 - seconds that only these tests pay

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(8)
    yield
    torch.set_num_threads(before)


def run(graph: Path, **inputs: NDArray[Any]) -> NDArray[np.float32]:
    """What a graph gives."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, inputs)[0])


def folder_of(base: Path, name: str, checkpoint: Path) -> Path:
    """The folder of a pulled checkpoint with its graphs."""
    return next(path for path in (pulled(base, name, checkpoint) / name).iterdir() if path.is_dir())


def mobilenet_logits(checkpoint: Path, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    import torch  # noqa: PLC0415 - as above
    from transformers import MobileNetV2ForImageClassification  # noqa: PLC0415 - as above

    model = MobileNetV2ForImageClassification.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        return np.asarray(model(torch.from_numpy(pixels)).logits)


@needs_assets
def test_mobilenet_s_logits_are_torch_s_for_every_photograph(tmp_path: Path) -> None:
    from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import MobileNetV2ImageProcessorPil  # noqa: PLC0415 - as above

    processor = MobileNetV2ImageProcessorPil.from_pretrained(MOBILENET)
    photos = [ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in sorted(PHOTOS.glob("*.jpg"))]
    pixels = np.concatenate([processor(photo, return_tensors="np")["pixel_values"] for photo in photos]).astype(np.float32)
    ours = run(folder_of(tmp_path, "mobilenet", MOBILENET) / "model.onnx", pixel_values=pixels)
    assert len(photos) == 10
    assert np.abs(ours - mobilenet_logits(MOBILENET, pixels)).max() <= CLOSE


@needs_assets
def test_an_answer_through_the_app_is_the_library_s(tmp_path: Path) -> None:
    from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import MobileNetV2ImageProcessorPil  # noqa: PLC0415 - as above

    processor = MobileNetV2ImageProcessorPil.from_pretrained(MOBILENET)
    labels = json.loads((MOBILENET / "config.json").read_text())["id2label"]
    with running("mobilenet", pulled(tmp_path, "mobilenet", MOBILENET)) as app:
        for path in sorted(PHOTOS.glob("*.jpg")):
            pixels = processor(Image.open(path).convert("RGB"), return_tensors="np")["pixel_values"].astype(np.float32)
            logits = mobilenet_logits(MOBILENET, pixels)[0].astype(np.float64)
            chances = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
            best = app.http.post("/predict", content=path.read_bytes()).json()["predictions"][0]
            assert (best["label"], best["index"]) == (labels[str(chances.argmax())], chances.argmax())
            assert best["score"] == pytest.approx(chances.max(), abs=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"tf_padding": False},
        {"output_stride": 16},
        {"output_stride": 8, "tf_padding": False},
        {"hidden_act": "relu"},
        {"layer_norm_eps": 0.1},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [32, 45])
def test_every_shape_of_mobilenet_that_a_configuration_may_say(tmp_path: Path, config: dict[str, Any], size: int) -> None:
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification  # noqa: PLC0415 - as above

    written = write_mobilenet(tmp_path / "written", size=size, **config)
    told = json.loads((written / "config.json").read_text()) | {"depth_multiplier": 0.5, "expand_ratio": 3.0}
    MobileNetV2ForImageClassification(MobileNetV2Config(**told)).save_pretrained(tmp_path / "made")
    for name in ("preprocessor_config.json",):
        (tmp_path / "made" / name).write_bytes((written / name).read_bytes())
    pixels = np.random.default_rng(3).normal(size=(2, 3, size, size)).astype(np.float32)
    ours = run(folder_of(tmp_path / "weights", "mobilenet", tmp_path / "made") / "model.onnx", pixel_values=pixels)
    assert np.abs(ours - mobilenet_logits(tmp_path / "made", pixels)).max() <= CLOSE


@pytest.mark.parametrize("size", [(640, 427), (427, 640), (64, 64), (31, 500), (224, 224), (225, 223)])
def test_preprocessing_is_the_library_s_step_by_step(size: tuple[int, int], model_modules: Any) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil  # noqa: PLC0415 - as above
    from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import MobileNetV2ImageProcessorPil  # noqa: PLC0415 - as above

    picture = scene(*size)
    published = {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}}
    for processor in (
        CLIPImageProcessorPil(),
        MobileNetV2ImageProcessorPil(**published),
        MobileNetV2ImageProcessorPil(size={"height": 224, "width": 224}, do_center_crop=False),
        CLIPImageProcessorPil(do_rescale=False, do_normalize=False),
    ):
        theirs = processor(picture, return_tensors="np")["pixel_values"][0]
        ours = model_modules.preprocessing.Preprocessing.read(json.loads(processor.to_json_string()))(picture)
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= 1e-5


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_clip_s_vectors_are_the_library_s(tmp_path: Path, activation: str) -> None:
    checkpoint = write_clip(tmp_path / "clip", activation=activation)
    agrees(checkpoint, folder_of(tmp_path / "weights", "clip", checkpoint), 32)


@pytest.mark.slow
def test_clip_at_its_full_size_exports_loads_and_agrees(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel  # noqa: PLC0415 - as above

    model = CLIPModel(CLIPConfig())
    assert sum(each.numel() for each in model.parameters()) == VIT_B_32
    keys = {name: tuple(each.shape) for name, each in model.state_dict().items()}
    assert keys["vision_model.embeddings.patch_embedding.weight"] == (768, 3, 32, 32)
    assert keys["text_model.embeddings.token_embedding.weight"] == (49408, 512)
    assert keys["visual_projection.weight"] == (512, 768)
    assert keys["text_projection.weight"] == (512, 512)
    assert keys["logit_scale"] == ()
    assert len([name for name in keys if ".encoder.layers." in name]) == 2 * 12 * 16
    model.save_pretrained(tmp_path / "clip")
    (tmp_path / "clip" / "preprocessor_config.json").write_text(
        json.dumps(
            {"size": {"shortest_edge": 224}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
            | {"do_center_crop": True, "crop_size": {"height": 224, "width": 224}}
        )
    )
    write_tokenizer(tmp_path / "clip" / "tokenizer.json")
    weights = pulled(tmp_path / "weights", "clip", tmp_path / "clip")
    agrees(tmp_path / "clip", next(path for path in (weights / "clip").iterdir() if path.is_dir()), 224)
    with running("clip", weights) as app:
        answer = app.http.post("/predict", content=encoded(scene()), params={"labels": "a,b,c"})
        assert answer.status_code == 200, answer.text
        assert len(app.http.post("/embed", json={"texts": ["cat"]}).json()["embeddings"][0]["embedding"]) == 512
        assert app.memory_bytes() < 2 * GIB * 0.9, f"{app.memory_bytes() / MIB:.0f} MiB"


def agrees(checkpoint: Path, exported: Path, size: int) -> None:
    """Both graphs give what the library gives."""
    import torch  # noqa: PLC0415 - as above
    from transformers import CLIPModel  # noqa: PLC0415 - as above

    model = CLIPModel.from_pretrained(checkpoint).eval()
    end, chance = model.config.text_config.eos_token_id, np.random.default_rng(5)
    pixels = chance.normal(size=(3, 3, size, size)).astype(np.float32)
    tokens = chance.integers(5, 900, (4, 12))
    for row, length in zip(tokens, (3, 11, 7, 9), strict=True):
        row[length:] = end
    with torch.no_grad():
        images = np.asarray(model.get_image_features(pixel_values=torch.from_numpy(pixels)).pooler_output)
        texts = np.asarray(model.get_text_features(input_ids=torch.from_numpy(tokens)).pooler_output)
    assert np.abs(run(exported / "image.onnx", pixel_values=pixels) - images).max() <= CLOSE
    assert np.abs(run(exported / "text.onnx", input_ids=tokens) - texts).max() <= CLOSE
    scale = onnxruntime.InferenceSession(exported / "image.onnx").get_modelmeta().custom_metadata_map["logit_scale"]
    assert float(scale) == pytest.approx(float(model.logit_scale.detach().exp()), rel=1e-5)


def test_an_old_configuration_s_end_of_text_is_the_token_with_the_highest_number(tmp_path: Path) -> None:
    checkpoint = write_clip(tmp_path / "clip")
    config = json.loads((checkpoint / "config.json").read_text())
    end = config["text_config"]["eos_token_id"]
    config["text_config"]["eos_token_id"] = 2
    (checkpoint / "config.json").write_text(json.dumps(config))
    tokens = np.asarray([[5, 6, end, end], [7, 8, 9, end]])
    import torch  # noqa: PLC0415 - as above
    from transformers import CLIPModel  # noqa: PLC0415 - as above

    with torch.no_grad():
        theirs = CLIPModel.from_pretrained(checkpoint).eval().get_text_features(input_ids=torch.from_numpy(tokens)).pooler_output
    ours = run(folder_of(tmp_path / "weights", "clip", checkpoint) / "text.onnx", input_ids=tokens)
    assert np.abs(ours - np.asarray(theirs)).max() <= CLOSE


def drawn(colour: str, shape: str, chance: random.Random) -> Image.Image:
    """A picture of the shape in the colour, somewhere on a dim ground."""
    picture = Image.new("RGB", (32, 32), tuple(chance.randint(0, 40) for _ in range(3)))
    side = chance.randint(14, 22)
    left, top = chance.randint(0, 31 - side), chance.randint(0, 31 - side)
    paint, box = ImageDraw.Draw(picture), (left, top, left + side, top + side)
    fill = tuple(max(0, min(255, value + chance.randint(-20, 20))) for value in COLOURS[colour])
    if shape == "circle":
        paint.ellipse(box, fill)
    elif shape == "square":
        paint.rectangle(box, fill)
    else:
        paint.polygon([(left + side // 2, top), (left, top + side), (left + side, top + side)], fill)
    return picture


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP that has learnt four colours and three shapes."""
    import torch  # noqa: PLC0415 - as above
    from tokenizers import Tokenizer  # noqa: PLC0415 - as above
    from transformers import CLIPConfig, CLIPModel  # noqa: PLC0415 - as above

    folder = tmp_path_factory.mktemp("trained")
    end = write_tokenizer(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(pad_id=end, length=CLIP_LONGEST)
    ends = {"eos_token_id": end, "bos_token_id": end - 1, "max_position_embeddings": CLIP_LONGEST, "projection_dim": CLIP_WIDTH}
    config = CLIPConfig(text_config=CLIP_TEXT | ends, vision_config=CLIP_VISION | {"projection_dim": CLIP_WIDTH}, projection_dim=CLIP_WIDTH)
    model, chance = CLIPModel(config), random.Random(4)
    write_clip_config(folder, end)
    mean, deviation = (
        np.asarray(json.loads((folder / "preprocessor_config.json").read_text())[key]) for key in ("image_mean", "image_std")
    )
    steps = torch.optim.AdamW(model.parameters(), lr=2e-3)
    classes = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    texts = torch.tensor([each.ids for each in tokenizer.encode_batch([f"a photo of a {colour} {shape}" for colour, shape in classes])])
    for _ in range(STEPS):
        chosen = [chance.randrange(len(classes)) for _ in range(BATCH)]
        pictures = np.stack([np.asarray(drawn(*classes[each], chance), np.float32) for each in chosen])
        pixels = torch.from_numpy(((pictures / 255 - mean) / deviation).transpose(0, 3, 1, 2).astype(np.float32))
        likeness = model(input_ids=texts, pixel_values=pixels).logits_per_image
        loss = torch.nn.functional.cross_entropy(likeness, torch.tensor(chosen))
        steps.zero_grad()
        loss.backward()
        steps.step()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.eval().save_pretrained(folder)
    write_clip_config(folder, end)
    return folder


@pytest.fixture(scope="module")
def clip(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    with running("clip", pulled(tmp_path_factory.mktemp("weights"), "clip", trained)) as app:
        yield app


def right(post: Any, count: int = 60) -> float:
    """The part of fresh pictures whose own label comes first."""
    chance, labels = random.Random(99), [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
    found = 0
    for _ in range(count):
        label = chance.choice(labels)
        answer = post(encoded(drawn(*label.split(), chance)), labels)
        found += answer["predictions"][0]["label"] == label
    return found / count


def test_what_it_was_trained_on_it_puts_first(clip: RunningApp) -> None:
    def post(picture: bytes, labels: list[str]) -> Any:
        return clip.http.post("/predict", content=picture, params={"labels": labels}).json()

    assert right(post) >= ENOUGH


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_it_does_so_through_the_front_door(runtime: str, trained: Path, tmp_path: Path, flags: tuple[str, ...]) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    pulled(data / "weights", "clip", trained)
    with served_by(runtime, data, flags) as yard:
        yard.start()
        until(lambda: yard.http.get("/m/modelyard/clip/health").status_code == 200, "CLIP is built", 240)

        def post(picture: bytes, labels: list[str]) -> Any:
            files = {"file": ("drawn.png", picture, "image/png")}
            answer = yard.http.post("/m/modelyard/clip/predict", files=files, data={"labels": "\n".join(labels)})
            assert answer.status_code == 200, answer.text
            return answer.json()

        assert right(post, 30) >= ENOUGH


def test_a_picture_lies_nearest_to_its_text(clip: RunningApp) -> None:
    picture = drawn("blue", "circle", random.Random(1))
    texts = [f"a photo of a {colour} circle" for colour in COLOURS]
    rows = clip.http.post("/v1/embeddings", json={"input": texts}).json()["data"]
    image = np.asarray(clip.http.post("/embed", content=encoded(picture)).json()["embeddings"][0]["embedding"])
    assert list(COLOURS)[int(np.argmax([image @ np.asarray(row["embedding"]) for row in rows]))] == "blue"


def test_triton_s_client_works_unchanged(clip: RunningApp, tmp_path: Path) -> None:
    from tritonclient import http as triton  # noqa: PLC0415 - as above

    client = triton.InferenceServerClient(clip.url.removeprefix("http://"))
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("clip")
    assert {each["name"] for each in client.get_model_metadata("clip")["inputs"]} == {"image", "text", "pixel_values"}
    asked = [np.asarray([encoded(scene())] * 2, dtype=object), np.asarray([b"red", b"blue circle"], dtype=object)]
    inputs = [triton.InferInput(name, [2], "BYTES") for name in ("image", "text")]
    for each, values in zip(inputs, asked, strict=True):
        each.set_data_from_numpy(values)
    found = client.infer("clip", inputs)
    assert found.as_numpy("image_embeds").shape == found.as_numpy("text_embeds").shape == (2, CLIP_WIDTH)
    in_words = triton.InferInput("text", [1], "BYTES")
    in_words.set_data_from_numpy(np.asarray(["red"], dtype=object), binary_data=False)
    alone = client.infer("clip", [in_words], outputs=[triton.InferRequestedOutput("text_embeds", binary_data=False)])
    assert alone.as_numpy("text_embeds")[0] == pytest.approx(found.as_numpy("text_embeds")[0], abs=1e-6)
    with pytest.raises(triton.InferenceServerException if hasattr(triton, "InferenceServerException") else Exception, match="BYTES"):
        client.infer("clip", [triton.InferInput("other", [1], "BYTES").set_data_from_numpy(np.asarray([b"x"], dtype=object))])
    client.close()
    assert httpx2.get(f"{clip.url}/v2/models/other").status_code == 404
    del tmp_path
