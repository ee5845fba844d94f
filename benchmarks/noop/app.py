"""On FastAPI alone; the very file that is uploaded to Modelyard."""

from fastapi import FastAPI

app = FastAPI()


@app.post("/predict")
async def predict(asked: dict[str, str]) -> dict[str, str]:
    """What was sent."""
    return {"output": asked["input"]}


@app.get("/health")
async def health() -> dict[str, str]:
    """That it runs."""
    return {"status": "healthy"}
