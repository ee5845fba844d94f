"""The pages of the upload service: the form, and the live build."""

from fastapi import APIRouter

from upload_service.routes import Doors


def pages(doors: Doors) -> APIRouter:
    """All of them."""
    del doors
    return APIRouter(tags=["pages"])
