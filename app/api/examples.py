"""Examples of the OpenAPI document: for each parameter, body and answer.

`examples.json` has a recorded answer for each operation, lists cut short; a new operation gets one there, and a new
parameter its own below. A test compares them with what the service answers, and fails for an operation without.
"""

import json
from functools import lru_cache
from importlib.resources import files
from typing import Any

EXPERIMENT, RUN, CHECKPOINT = "exp_1hthffprrk3qsjhzscya5", "run_1hthffps3awc7g32e8fa7", "ckpt_1hthfmar3ym4daf084dad"
ROWS = ("a29614eb43c92262", "765c9b3cbf018e24")

PARAMETERS: dict[str, Any] = {
    "experiment_id": EXPERIMENT, "run_id": RUN, "checkpoint_id": CHECKPOINT, "a": ROWS[0], "b": ROWS[1],
    "experiment": EXPERIMENT, "run": RUN, "subject": EXPERIMENT, "actor": "local", "name": "digits",
    "dataset": "digits", "architecture": "resnet20", "variant": "lif", "recipe": "default", "precision": "float32",
    "freeze_depth": 3, "norm": "linf", "eps": "8/255", "suite": "quick", "images": 1000, "attack": "pgd",
    "metric": "clean_accuracy", "sort": "robust_accuracy", "format": "json", "state": "succeeded", "kind": "evaluate",
    "archived": False, "restore": False, "files": False, "limit": 50, "cursor": EXPERIMENT, "tail": 100, "offset": 0,
    "rows": [ROWS[0], ROWS[1]], "index": 0, "model": CHECKPOINT, "inference-header-content-length": "116",
    "stem": "cifar", "image_size": 32, "classes": 10, "channels": 3, "offline": False, "small": True,
    "as_published": False,
    "draws": 20, "seed": 0, "top": 3,
    "idempotency-key": "first-try", "last-event-id": "17",
    "if-none-match": '"8dd4a09cbf1ec9b0d8a8d0ce8a9bbb0a1a5aab26ee9f1eb1a5c7c0a2d5b0a6f1"',
}  # fmt: skip
PARAMETERS_OF: dict[tuple[str, str], Any] = {  # where the same name means another thing
    ("GET /presets/{name}", "name"): "quickstart", ("GET /attacks/{name}", "name"): "fgsm",
    ("GET /suites/{name}", "name"): "quick",
    ("GET /architectures/{name}", "name"): "resnet20", ("GET /runs", "cursor"): RUN,
    ("GET /checkpoints", "cursor"): CHECKPOINT, ("GET /trail", "cursor"): "trl_1hthh0w3xfeeftwf64npm",
    ("GET /runs/{run_id}/images", "cursor"): "12:8/255:pgd", ("GET /runs/{run_id}/verdicts", "cursor"): "12:8/255",
}
_GREY = [[0.0, 0.5, 1.0, 0.5, 0.0, 0.0, 0.5, 1.0]] * 8
_FILE = "(the bytes of a file)"
BODIES: dict[tuple[str, str], Any] = {
    ("POST /experiments", "application/json"): {"dataset": "digits", "name": "first try", "seeds": [0, 1]},
    ("POST /experiments/plan", "application/json"): {"dataset": "digits", "seeds": [0]},
    ("POST /checkpoints", "multipart/form-data"): {
        "file": _FILE, "architecture": "resnet20", "dataset": "digits", "name": "mine", "seed": 0,
    },
    ("POST /checkpoints/{checkpoint_id}/verify", "application/json"): {"clean": True},
    ("POST /checkpoints/{checkpoint_id}/predict", "multipart/form-data"): {"images": [_FILE], "draws": 20},
    ("POST /checkpoints/{checkpoint_id}/attack", "application/json"): {
        "test_image": 0, "attack": "pgd", "parameters": {"steps": 5}, "norm": "linf", "eps": "32/255",
    },
    ("POST /checkpoints/{checkpoint_id}/attack", "multipart/form-data"): {
        "image": _FILE, "attack": "pgd", "eps": "32/255",
    },
    ("POST /checkpoints/{checkpoint_id}/neurons", "application/json"): {"test_image": 0, "neurons": [3], "seed": 0},
    ("POST /checkpoints/{checkpoint_id}/neurons", "multipart/form-data"): {"image": _FILE, "count": 10},
    ("POST /v2/models/{model}/infer", "application/json"): {
        "inputs": [{"name": "images", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [0.5] * 64}],
        "parameters": {"draws": 20, "seed": 0},
    },
    ("POST /v2/models/{model}/infer", "application/octet-stream"): (
        '{"inputs": [{"name": "images", "shape": [1, 1, 8, 8], "datatype": "FP32", "parameters": '
        '{"binary_data_size": 256}}]}(then 256 bytes: 64 float32, little endian)'
    ),
    ("POST /checkpoints/{checkpoint_id}/predict", "application/json"): {
        "images": [_GREY], "draws": 20, "seed": 0, "top": 2,
    },
}  # fmt: skip
_BOARD = {"csv": "rank,architecture,variant,clean_accuracy,robust_accuracy\n1,resnet20,lif,0.978,0.1085\n",
          "markdown": "| rank | architecture | variant | clean % | robust % |\n|---:|---|---|---:|---:|\n"
                      "| 1 | resnet20 | lif | 97.8 ± 0.2 | 10.8 ± 2.9 |\n"}  # fmt: skip
_TEXTS: dict[tuple[str, str], str] = {
    ("GET /experiments/{experiment_id}/events", "text/event-stream"):
        'id: 17\nevent: state\ndata: {"run": "run_1hthffps3awc7g32e8fa7", "state": "running", "attempt": 1}\n\n',
    ("GET /runs/{run_id}/log", "text/plain"): "epoch 1/3: loss 1.3233, validation 0.9371, 2.0 s\n",
    ("GET /checkpoints/{checkpoint_id}/card", "text/markdown"): "# resnet20 lif on digits, seed 0\n\n## Model\n",
    ("GET /metrics", "text/plain"): 'spikeproof_runs{kind="train",state="succeeded"} 3.0\n',
    ("GET /leaderboard", "text/csv"): _BOARD["csv"], ("GET /leaderboard", "text/markdown"): _BOARD["markdown"],
    ("GET /leaderboard/matrix", "text/csv"):
        "dataset,metric,variant,architecture,mean,sd\ndigits,clean_accuracy,lif,resnet20,0.978,0.0022\n",
    ("GET /leaderboard/matrix", "text/markdown"): "| variant | resnet20 |\n|---|---:|\n| lif | 97.8 ± 0.2 &lt;6,3> |\n",
    ("GET /curves", "text/csv"):
        "dataset,label,eps,accuracy\ndigits,resnet20 lif,0.0,0.98\ndigits,resnet20 lif,0.125,0.1085\n",
    ("GET /curves", "text/markdown"): "| row | eps 0 % | 32/255 % |\n|---|---:|---:|\n| resnet20 lif | 97.8 | 10.8 |\n",
    ("GET /compare", "text/csv"): "figure,eps,a,b,difference\nrobust_accuracy,0.12549019607843137,0.1085,0.08,0.0285\n",
    ("GET /compare", "text/markdown"): "| figure | A − B, points |\n|---|---:|\n| robust accuracy | +2.9 |\n",
}  # fmt: skip
PROBLEM = {
    "type": "urn:spikeproof:problem:invalid-input", "title": "Invalid input", "status": 422, "instance": "/experiments",
    "detail": "/dataset: there is no data set 'digit'; did you mean 'digits'?",
    "errors": [{"pointer": "/dataset", "detail": "there is no data set 'digit'; did you mean 'digits'?"}],
}


def add_examples(operation: dict[str, Any], name: str) -> None:
    """To the operation `name` of the document, such as `"GET /runs"`; what says an example itself keeps its own."""
    for parameter in operation.get("parameters", []):
        example = _parameter(name, parameter["name"].lower())
        if example is not None:
            parameter.setdefault("example", example)
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        _give(content, BODIES.get((name, kind)))
    for status, answer in operation["responses"].items():
        if status.startswith("2"):
            for kind, content in answer.get("content", {}).items():
                _give(content, answers().get(name) if kind == "application/json" else _TEXTS.get((name, kind)))


def _parameter(operation: str, name: str) -> Any:
    return PARAMETERS_OF.get((operation, name), PARAMETERS.get(name))


def _give(content: dict[str, Any], example: Any) -> None:
    if example is not None and "examples" not in content:
        content.setdefault("example", example)


@lru_cache
def answers() -> dict[str, Any]:
    """The recorded answers, by operation."""
    found: dict[str, Any] = json.loads((files("app.api") / "examples.json").read_text("utf-8"))
    return found
