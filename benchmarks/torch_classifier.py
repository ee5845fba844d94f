"""The control of the built-in classifier: torch in a process of its own, told what to do by lines on standard input.

`python torch_classifier.py CHECKPOINT APP PHOTOS...` answers each line with one of JSON: `{"batch": B, "images": N}` classifies N photographs
in a loop with batches of B, decoded and preprocessed by the very code of the app, and gives the seconds and the labels.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any


def main(checkpoint: str, app: str, photos: list[str]) -> None:
    """Load once, then answer lines until there are no more."""
    sys.path.insert(0, app)
    import numpy as np  # noqa: PLC0415 - loading is what is measured first
    import torch  # noqa: PLC0415 - as above
    from pictures import read_picture  # type: ignore[import-not-found] # noqa: PLC0415 - the app's own module
    from preprocessing import Preprocessing  # type: ignore[import-not-found] # noqa: PLC0415 - the app's own module
    from transformers import MobileNetV2ForImageClassification  # noqa: PLC0415 - as above

    steps = Preprocessing.read(json.loads(Path(checkpoint, "preprocessor_config.json").read_text()))
    model = MobileNetV2ForImageClassification.from_pretrained(checkpoint).eval()
    contents = [Path(photo).read_bytes() for photo in photos]

    def classify(batch: int, images: int) -> dict[str, Any]:
        began, labels = time.perf_counter(), []
        for start in range(0, images, batch):
            chosen = [contents[number % len(contents)] for number in range(start, min(start + batch, images))]
            pixels = np.stack([steps(read_picture(content)[0]) for content in chosen])
            with torch.inference_mode():
                found = model(torch.from_numpy(pixels)).logits.softmax(-1).argmax(-1)
            labels += [model.config.id2label[int(index)] for index in found]
        return {"seconds": time.perf_counter() - began, "labels": labels[: len(contents)]}

    for line in sys.stdin:
        print(json.dumps(classify(**json.loads(line))), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
