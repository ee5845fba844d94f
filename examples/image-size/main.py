"""A typed body and a file upload: how large is this picture, and how bright?"""

from io import BytesIO
from typing import Annotated

from fastapi import FastAPI, File, HTTPException, UploadFile
from PIL import Image, ImageStat, UnidentifiedImageError
from pydantic import BaseModel, Field

app = FastAPI(title="Image size")


class Box(BaseModel):
    width: int = Field(gt=0, le=20_000)
    height: int = Field(gt=0, le=20_000)


class Area(BaseModel):
    pixels: int
    megapixels: float


class Picture(BaseModel):
    width: int
    height: int
    format: str
    brightness: float


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "healthy"}


@app.post("/predict")
def predict(box: Box) -> Area:
    pixels = box.width * box.height
    return Area(pixels=pixels, megapixels=round(pixels / 1e6, 3))


@app.post("/describe")
def describe(file: Annotated[UploadFile, File()]) -> Picture:
    try:
        with Image.open(BytesIO(file.file.read())) as picture:
            brightness = ImageStat.Stat(picture.convert("L")).mean[0] / 255
            return Picture(width=picture.width, height=picture.height, format=picture.format or "", brightness=round(brightness, 3))
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise HTTPException(422, "This is not a picture that can be read.") from error
