"""`/docs` and `/redoc`: the API's own documentation. Their scripts come from a package here, none from elsewhere."""

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, Response

from app.domain.errors import NotFound

router = APIRouter(include_in_schema=False)
ASSETS = {
    "swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "redoc.standalone.js": "text/javascript",
    "favicon.png": "image/png",
}  # fmt: skip
_PLACE = "/docs/assets"
# ReDoc shows its maker's logo from another host, whatever its options: an image of nothing takes that address.
_LOGO = b'"https://cdn.redoc.ly/redoc/logo-mini.svg"'
_NOTHING = b'"data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"'
# Whatever else a script might ask another host for, a browser may fetch from ours alone.
_POLICY = {"Content-Security-Policy": "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
                                      "script-src 'self' 'unsafe-inline'; worker-src 'self' blob:"}  # fmt: skip


@router.get("/docs")
def swagger(request: Request) -> HTMLResponse:
    """Swagger UI: every operation, to read and to try."""
    root = str(request.scope.get("root_path", ""))
    page = get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json", title="spikeproof: API",
        swagger_js_url=f"{root}{_PLACE}/swagger-ui-bundle.js",
        swagger_css_url=f"{root}{_PLACE}/swagger-ui.css", swagger_favicon_url=f"{root}{_PLACE}/favicon.png",
        swagger_ui_parameters={"validatorUrl": None, "displayRequestDuration": True},
    )
    return HTMLResponse(page.body, headers=_POLICY)


@router.get("/redoc")
def redoc(request: Request) -> HTMLResponse:
    """ReDoc: the same on one page, to read."""
    root = str(request.scope.get("root_path", ""))
    page = get_redoc_html(
        openapi_url=f"{root}/openapi.json", title="spikeproof: API", redoc_js_url=f"{root}{_PLACE}/redoc.standalone.js",
        redoc_favicon_url=f"{root}{_PLACE}/favicon.png", with_google_fonts=False,
    )
    return HTMLResponse(page.body, headers=_POLICY)


@router.get(_PLACE + "/{name}")
def asset(name: str) -> Response:
    """A script or a style sheet of the two."""
    if name not in ASSETS:
        raise NotFound.of("asset", name, ASSETS)
    path = Path(str(files("fastapi_offline") / "static" / name))
    if name == "redoc.standalone.js":
        return Response(path.read_bytes().replace(_LOGO, _NOTHING), media_type=ASSETS[name])
    return FileResponse(path, media_type=ASSETS[name])
