"""The control of the built-in CLIP: torch in a process of its own, told what to do by lines on standard input.

`python torch_clip.py make FOLDER END` writes a checkpoint of the full ViT-B/32 shape at random weights for a tokenizer whose texts end with this number.
`python torch_clip.py CHECKPOINT APP LABELS PHOTOS...` answers each line, a number, with one of JSON: the seconds for so many photographs, and the
label that fits each; decoded and preprocessed by the very code of the app, the texts embedded once.
"""

import json
import sys
import time
from pathlib import Path

END = "<|endoftext|>"


def make(folder: str, end: int) -> None:
    """The same weights each time."""
    import torch  # noqa: PLC0415 - loading is what is measured first, below
    from transformers import CLIPConfig, CLIPModel  # noqa: PLC0415 - as above

    torch.manual_seed(20)
    CLIPModel(CLIPConfig(text_config={"eos_token_id": end, "bos_token_id": end - 1})).save_pretrained(folder)


def main(checkpoint: str, app: str, labels: str, photos: list[str]) -> None:
    """Load once, then answer lines until there are no more."""
    sys.path.insert(0, app)
    import numpy as np  # noqa: PLC0415 - as above
    import torch  # noqa: PLC0415 - as above
    from pictures import read_picture  # type: ignore[import-not-found] # noqa: PLC0415 - the app's own module
    from preprocessing import Preprocessing  # type: ignore[import-not-found] # noqa: PLC0415 - the app's own module
    from tokenizers import Tokenizer  # noqa: PLC0415 - as above
    from transformers import CLIPModel  # noqa: PLC0415 - as above

    steps = Preprocessing.read(json.loads(Path(checkpoint, "preprocessor_config.json").read_text()))
    model = CLIPModel.from_pretrained(checkpoint).eval()
    tokenizer = Tokenizer.from_file(str(Path(checkpoint, "tokenizer.json")))
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(END), pad_token=END)
    contents, names = [Path(photo).read_bytes() for photo in photos], labels.split(",")
    texts: list[torch.Tensor] = []

    for line in sys.stdin:
        began, found = time.perf_counter(), []
        with torch.inference_mode():
            if not texts:
                tokens = torch.tensor([each.ids for each in tokenizer.encode_batch([f"a photo of a {name}" for name in names])])
                texts.append(torch.nn.functional.normalize(model.get_text_features(input_ids=tokens).pooler_output))
            for number in range(int(line)):
                pixels = torch.from_numpy(np.stack([steps(read_picture(contents[number % len(contents)])[0])]))
                seen = torch.nn.functional.normalize(model.get_image_features(pixel_values=pixels).pooler_output)
                found.append(names[int((texts[0] @ seen[0]).argmax())])
        print(json.dumps({"seconds": time.perf_counter() - began, "labels": found}), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2], int(sys.argv[3]))
    else:
        main(*sys.argv[1:4], sys.argv[4:])
