"""`/ui/static/NAME`: scripts and styles of the pages."""

from fastapi import APIRouter, Request, Response

from app.dashboard.assets import ASSETS
from app.domain.errors import NotFound

router = APIRouter(include_in_schema=False)
FOR_GOOD = "public, max-age=31536000, immutable"  # the address holds the content's version


@router.get("/ui/static/{name}")
def show(request: Request, name: str, v: str = "") -> Response:
    """One file, compressed where the browser takes it; kept by the browser when asked for by its version."""
    asset = ASSETS.get(name)
    if asset is None:
        raise NotFound.of("file", name, ASSETS)
    headers = {"ETag": f'"{asset.version}"', "Vary": "Accept-Encoding",
               "Cache-Control": FOR_GOOD if v == asset.version else "no-cache"}  # fmt: skip
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(asset.compressed, media_type=asset.media_type, headers=headers | {"Content-Encoding": "gzip"})
    return Response(asset.content, media_type=asset.media_type, headers=headers)
