"""`/v2`: the Open Inference Protocol (KServe's v2) for every checkpoint, by its id. See docs/how-to/predictions.md."""

from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import ValidationError

from app.api import predictions
from app.api.dependencies import Services, ServicesOf
from app.api.predictions import MAX_IMAGES, Answered, PredictOptions, Question, Read, network_of, shape_of
from app.domain.errors import InvalidInput, NotFound, Problem, ServiceUnavailable, UnsupportedMedia, suggestion
from app.inference import open_inference as protocol
from app.inference.open_inference import InferRequest
from app.storage import results
from app.storage.tables import Checkpoint

VERSIONED = "/models/{model}/versions/{model_version}"
router = APIRouter(prefix="/v2", tags=["open inference protocol"])
PARAMETERS = ("draws", "seed", "binary_data_output")
HeaderLength = Annotated[str | None, Header(alias=protocol.HEADER, max_length=20)]
_BODY = {"requestBody": {"required": True, "content": {
    "application/json": {"schema": InferRequest.model_json_schema(ref_template="#/components/schemas/{model}")},
    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
}}}  # fmt: skip


def check_version(model: str, model_version: str) -> None:
    """The file of a checkpoint never changes: it has one version. Raises NotFound."""
    if model_version != protocol.VERSION:
        raise NotFound(f"model {model!r} has the version {protocol.VERSION} alone, not {model_version!r}")


@router.get("", summary="The server")
def server() -> dict[str, Any]:
    """Name, version and extensions."""
    return {"name": "spikeproof", "version": version("spikeproof"), "extensions": list(protocol.EXTENSIONS)}


@router.get("/health/live", summary="Alive")
def live() -> dict[str, bool]:
    """Answers as long as the process does."""
    return {"live": True}


@router.get("/health/ready", summary="Ready for predictions")
def ready(services: ServicesOf) -> dict[str, bool]:
    """The database answers, and predictions do not wait for a stop: no worker is needed for them."""
    with services.database.reading() as session:
        results.checkpoints(session, after=None, limit=1)
    if services.batcher.closed:
        raise ServiceUnavailable("the service is stopping; try again when it is back")
    return {"ready": True}


@router.get("/models/{model}", summary="A model's inputs and outputs")
@router.get(VERSIONED, include_in_schema=False, dependencies=[Depends(check_version)])
def model_metadata(model: str, services: ServicesOf) -> dict[str, Any]:
    """`images` in; `probabilities` and `logits` out, and `spread` where the network is stochastic."""
    row = _row(services, model)
    stochastic = row.variant != "default"
    return protocol.metadata(row.id, shape_of(row), len(row.spec["classes"]), stochastic=stochastic)


@router.get("/models/{model}/ready", summary="Whether a model can answer")
@router.get(f"{VERSIONED}/ready", include_in_schema=False, dependencies=[Depends(check_version)])
def model_ready(model: str, services: ServicesOf) -> dict[str, Any]:
    """Loads its file, so that the first prediction need not."""
    row = _row(services, model)
    network_of(services, row)
    return {"name": row.id, "ready": True}


@router.post("/models/{model}/infer", summary="Classify images", openapi_extra=_BODY, response_model=dict[str, Any])
@router.post(f"{VERSIONED}/infer", include_in_schema=False, dependencies=[Depends(check_version)])
async def infer(
    model: str, request: Request, services: ServicesOf, header_length: HeaderLength = None
) -> Response:
    """One input `images`, FP32 in 0..1, of shape [images, channels, height, width], as JSON or bytes behind it.
    `parameters`: `draws` (20) and `seed` (0) of a stochastic network."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedMedia("send the body without Content-Encoding")
    asked, binary = protocol.split(await request.body(), header_length)
    found = await predictions.ask(services, model, _reader(asked, binary))
    return _response(found, asked)


def _reader(asked: InferRequest, binary: bytes) -> Read:
    options = _options(asked)
    tensor = asked.inputs[0]

    def read(row: Checkpoint, take: Any) -> Question:
        take(protocol.images_of(tensor, binary, shape_of(row), MAX_IMAGES))
        protocol.wanted_outputs(asked, stochastic=row.variant != "default", draws=options.draws)
        return Question(protocol.pixels_of(tensor, binary), options)

    return read


def _options(asked: InferRequest) -> PredictOptions:
    unknown = [name for name in asked.parameters if name not in PARAMETERS]
    if unknown:
        raise InvalidInput([
            Problem(f"/parameters/{name}", "unknown parameter" + suggestion(name, PARAMETERS)) for name in unknown
        ])
    try:
        return PredictOptions(**{name: asked.parameters[name] for name in PARAMETERS[:2] if name in asked.parameters})
    except ValidationError as error:
        raise InvalidInput([
            Problem(f"/parameters/{fault['loc'][0]}", fault["msg"]) for fault in error.errors()
        ]) from error


def _response(found: Answered, asked: InferRequest) -> Response:
    draws = found.options.draws
    names = protocol.wanted_outputs(asked, stochastic=found.stochastic, draws=draws)
    parameters = {"draws": draws, "seed": found.options.seed} if found.stochastic else {}
    content, size = protocol.write(
        protocol.tensors(found.answers, names), asked, found.checkpoint.id, parameters
    )
    if size is None:
        return Response(content, media_type="application/json")
    return Response(content, media_type="application/octet-stream", headers={protocol.HEADER: str(size)})


def _row(services: Services, model: str) -> Checkpoint:
    with services.database.reading() as session:
        return results.checkpoint(session, model)
