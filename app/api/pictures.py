"""`/datasets/{name}/images/{index}`: images of a test split, one at a time."""

import io
from typing import Any

from fastapi import APIRouter, Response

from app.api.dependencies import ServicesOf
from app.domain.datasets import Dataset
from app.storage import datasets, pictures

router = APIRouter(prefix="/datasets/{name}/images", tags=["catalogues"])


@router.get("/{index}/image.png", summary="An image of the test split", response_class=Response,
            responses={200: {"content": {"image/png": {}}}})
def image(name: str, index: int, services: ServicesOf) -> Response:
    """As a PNG in its own size; `X-Label` has the number of its class. While no run has used the data set here: 409."""
    from PIL import Image

    dataset = _dataset(name, services)
    pixels, label = pictures.test_image(dataset, index, services.settings.data_dir)
    content = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(content, format="PNG")
    headers = {"X-Label": str(label), "Cache-Control": "private, max-age=3600"}
    return Response(content.getvalue(), media_type="image/png", headers=headers)


@router.get("/{index}", summary="What an image of the test split shows")
def describe(name: str, index: int, services: ServicesOf) -> dict[str, Any]:
    """Its class, and where the picture is."""
    dataset = _dataset(name, services)
    _, label = pictures.test_image(dataset, index, services.settings.data_dir)
    return {
        "dataset": name, "index": index, "label": {"index": label, "class": dataset.classes[label]},
        "image": f"/datasets/{name}/images/{index}/image.png", "test_size": dataset.test_size,
    }


def _dataset(name: str, services: ServicesOf) -> Dataset:
    return datasets.find(name, services.settings.data_dir)
