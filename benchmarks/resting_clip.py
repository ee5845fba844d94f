"""The built-in CLIP at its full size: what an instance has in memory, and how long it takes from stopped, frozen and running, against torch."""

import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.classifiers import TorchProcess, can_compare, memory_mb
from benchmarks.ground import OWNER, Server
from benchmarks.images import AT_REST_S, COLD, ENDS_SOON, FREEZES, FREEZES_SOON, at_rest, instance_pids, served
from benchmarks.result import Result
from benchmarks.rounds import Figures, WrongAnswerError, measure
from tests.parts.checkpoints import APPS, PHOTOS, write_tokenizer

SCRIPT = str(Path(__file__).with_name("torch_clip.py"))
LABELS = ("red circle", "blue square", "green triangle")
PHOTOGRAPHS = ("bird.jpg", "cat.jpg", "parrot.jpg", "sunflower.jpg")
# As CLIP's own processor is configured.
PREPARED = {
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "resample": 3,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}


class TorchClip(TorchProcess):
    """CLIP in torch."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(SCRIPT, str(checkpoint), str(APPS / "clip"), ",".join(LABELS), *(str(PHOTOS / name) for name in PHOTOGRAPHS))

    def ask(self, images: int) -> tuple[float, list[str]]:
        """The seconds for so many photographs, and the label of each."""
        told = self.ask_line(str(images))
        return float(told["seconds"]), list(told["labels"])


def resting_clip(folder: Path, cache: Path) -> list[Result]:
    """Memory and times; nothing where torch or the photographs are missing."""
    if not can_compare():
        return []
    checkpoint = _checkpoint(folder / "checkpoint")
    with served(folder / "served", cache, "clip", checkpoint, **{COLD: ENDS_SOON, FREEZES: FREEZES_SOON}) as server:
        with TorchClip(checkpoint) as torch:
            _, expected = torch.ask(len(PHOTOGRAPHS))

        def ours(_: int) -> Figures:
            before = at_rest(server)
            figures = {"first_s": _ask(server, COLD, expected[:1])}
            figures["warm_s"] = _ask(server, COLD, expected) / len(expected)
            time.sleep(AT_REST_S)
            figures["memory_mb"] = memory_mb(*set(instance_pids(server)) - before)
            figures["frozen_s"] = _ask(server, FREEZES, expected[:1])
            return figures

        def control(_: int) -> Figures:
            began = time.perf_counter()
            with TorchClip(checkpoint) as torch:
                torch.ask(1)
                first_s = time.perf_counter() - began
                seconds, labels = torch.ask(len(expected))
                if labels != expected:
                    raise WrongAnswerError(f"torch says {labels}")
                return {"first_s": first_s, "warm_s": seconds / len(expected), "memory_mb": memory_mb(torch.pid)}

        _ask(server, FREEZES, expected[:1])
        measured = measure(ours, control, "memory_mb", rounds=3, budget_s=90)
    return [
        Result(
            "resting-clip",
            "an instance of CLIP ViT-B/32 with its holder and sandbox, after it has answered; first: from stopped, frozen: from frozen, warm: running",
            "the same with torch and transformers in one process, without sandbox and HTTP",
            "P10: memory <= 0.5x",
            measured,
            facts={"labels": len(LABELS), "weights": "random"},
        )
    ]


def _checkpoint(folder: Path) -> Path:
    """The full shape: 151 million parameters."""
    folder.mkdir(parents=True)
    end = write_tokenizer(folder / "tokenizer.json")
    subprocess.run([sys.executable, SCRIPT, "make", str(folder), str(end)], check=True, capture_output=True)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPARED))
    return folder


def _ask(server: Server, name: str, expected: list[str]) -> float:
    """The seconds in which these labels were the answers, one call for each."""
    contents = [(PHOTOS / photo).read_bytes() for photo in PHOTOGRAPHS[: len(expected)]]
    began, found = time.perf_counter(), []
    for content in contents:
        asked = {"labels": list(LABELS), "top_k": 1}
        answer = server.http.post(f"/m/{OWNER}/{name}/predict", params=asked, content=content, headers={"content-type": "image/jpeg"})
        if not answer.is_success:
            raise WrongAnswerError(f"{answer.status_code} {answer.text[:200]}")
        found.append(answer.json()["predictions"][0]["label"])
    took_s = time.perf_counter() - began
    if found != expected:
        raise WrongAnswerError(f"{found}, not {expected}")
    return took_s
