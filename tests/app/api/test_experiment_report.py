"""An experiment as one HTML page, and the model card of a checkpoint, over HTTP."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from app.domain.suites import SUITES
from app.reports.model_card import _suite
from app.storage import runs
from app.storage.engine import Database
from tests.app.work import Queue
from tests.service import make_settings

NAME = "<script>alert(1)</script> & co"
CONDITIONS = {"device": "cpu", "hardware": "AVX2", "torch": "2.10.0", "threads": 2, "attack_batch": 250,
              "code_version": "0.1.0"}  # fmt: skip


def measure(run: Any) -> dict[str, Any]:
    warned, passed = ({"check": name, "verdict": verdict, "text": f"{verdict} was seen"}
                      for name, verdict in (("near_chance", "warn"), ("faulty_gradients", "ok")))
    bound = {"verdict": "upper bound only", "reasons": ["black box beats <white> box"],
             "details": {"test_images": 359, "clean_accuracy_subset": 0.97, "checks": [warned, passed]}}
    return {"robust_accuracy": 0.42, **(bound if run.spec["subject"]["variant"] == "paralif" else {})}


@pytest.fixture(scope="module")
def filled(
    module_database: Database, tmp_path_factory: pytest.TempPathFactory, serve_module
) -> tuple[httpx.Client, Queue, str]:
    """A service with an experiment that has run, galleries and training curves included."""
    folder = tmp_path_factory.mktemp("report")
    queue = Queue(module_database, folder)
    name = queue.submit(name=NAME, variants=["default", "paralif"], seeds=[0, 1])
    while (fence := queue.claim()) is not None:
        run = queue.run(fence.run_id)
        if run.kind == "evaluate":
            queue.do(results_of, fence, queue.figures(run, **measure(run)))
            path = folder / "runs" / run.id / "gallery.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (3, 3)).save(path)
            gallery = dict.fromkeys(run.spec["protocol"]["eps"], f"runs/{run.id}/gallery.png")
            queue.do(runs.succeed, fence, {"gallery": gallery, "conditions": [CONDITIONS]})
        else:
            queue.publish(fence, run)
            epochs = [{"epoch": e, "train_loss": 1 / e, "validation_accuracy": 0.5 + e / 10} for e in (1, 2, 3)]
            queue.do(runs.succeed, fence, {"epochs": epochs, "checkpoint": queue.do(made_by, run.id)})
    return serve_module(make_settings(data_dir=folder, database_url=module_database.url)), queue, name


def results_of(session: Any, fence: Any, figures: Any) -> None:
    from app.storage import results

    results.add_figures(session, fence, figures)


def made_by(session: Any, run_id: str) -> str:
    from app.storage import results

    return results.checkpoint_of_run(session, run_id).id


def page_of(api: httpx.Client, name: str) -> str:
    response = api.get(f"/experiments/{name}/report")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/html")
    return response.text


class Links(HTMLParser):
    """Whatever a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = ("src", "href", "srcset", "action", "data", "poster", "background", "xlink:href")
        self.found += [value or "" for name, value in attrs if name in names]


def test_no_request_leaves_the_page(filled) -> None:
    api, _, name = filled
    page, links = page_of(api, name), Links()
    links.feed(page)
    assert len(links.found) >= 6, "curves, training, four galleries"
    assert all(link.startswith("data:image/") for link in links.found)
    assert not {"script", "link", "iframe", "object", "embed"} & set(links.tags)
    assert not re.search(r"url\(|@import", page)
    pictures = [base64.b64decode(link.partition(",")[2]).decode("utf-8", "replace") for link in links.found]
    references = [r for svg in pictures if "<svg" in svg for r in re.findall(r'href="([^"]+)"', svg)]
    assert all(reference.startswith("#") for reference in references)
    policy = api.get(f"/experiments/{name}/report").headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")


def test_it_has_figures_verdicts_runs_specification_and_provenance(filled) -> None:
    api, queue, name = filled
    page = page_of(api, name)
    for eps, robust in (("8/255", "42.0"), ("32/255", "32.0"), ("64/255", "22.0")):
        table = page.partition(f"<h4>eps {eps}</h4>")[2].partition("</table>")[0]
        assert table.count(f">{robust} ± 0.0</td>") >= 2
    assert "black box beats &lt;white&gt; box" in page
    assert "upper bound only" in page
    for run in queue.runs(name):
        assert run.id in page
    for item in api.get("/checkpoints").json()["items"]:
        assert item["sha256"] in page
    assert "cpu (AVX2), torch 2.10.0, 2 threads" in page
    assert "&#34;branch_seeds&#34;" in page, "the specification with its defaults"
    assert "prefers-color-scheme: dark" in page


def test_what_users_wrote_is_text_and_no_markup(filled) -> None:
    api, _, name = filled
    page = page_of(api, name)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; co" in page


def test_an_experiment_that_has_only_begun_has_a_page_too(api: httpx.Client, queue: Queue, problem_of) -> None:
    page = page_of(api, queue.submit())
    assert "Nothing has been measured yet." in page
    problem_of(api.get("/experiments/exp_none/report"), 404)


def test_a_failed_run_says_why(api: httpx.Client, queue: Queue) -> None:
    name = queue.submit()
    queue.do(runs.fail, queue.must_claim(), "there was no more memory <here>")
    assert "there was no more memory &lt;here&gt;" in page_of(api, name)


def test_a_card_has_model_training_figures_with_protocol_data_and_provenance(filled) -> None:
    api, _, _ = filled
    [item, *_] = api.get("/checkpoints?variant=paralif").json()["items"]
    shown = api.get(f"/checkpoints/{item['id']}").json()
    assert shown["model_card"] == f"/checkpoints/{item['id']}/card"
    response = api.get(shown["model_card"])
    assert response.headers["content-type"] == "text/markdown; charset=utf-8"
    card = response.text
    assert card.startswith(f"# resnet20 ParaLIF on digits, seed {item['seed']}\n")
    suite = f"quick v{SUITES['quick'].version}"
    assert f"| {suite} | L∞ 32/255 | 359 | 32.0 | upper bound only | black box beats &lt;white> box |" in card
    assert "default v2" in card
    of_ones_own = {"suite": "custom", "attacks": {"fgsm": 0.5, "pgd": 0.4}, "protocol": {"suite_version": 1}}
    assert _suite(of_ones_own) == "custom v1 (fgsm, pgd)"
    assert "spike_mode SB" in card
    assert "CC BY 4.0" in card
    assert item["sha256"] in card
    assert "cpu (AVX2)" in card
    assert "Clean accuracy 90.0 % on 359 test images" in card
    warnings = [line for line in card.splitlines() if " was seen" in line]
    assert f"- {suite}, 32/255: `near_chance`: warn was seen" in warnings
    assert not [line for line in warnings if "ok was seen" in line]


def test_the_code_of_a_card_loads_the_network(filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api, _, _ = filled
    [item, *_] = api.get("/checkpoints?variant=default").json()["items"]
    card = api.get(f"/checkpoints/{item['id']}/card").text
    monkeypatch.chdir(tmp_path)
    Path(f"{item['id']}.safetensors").write_bytes(api.get(f"/checkpoints/{item['id']}/file").content)
    names: dict[str, Any] = {}
    [code] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    exec(code, names)
    assert names["logits"].shape == (1, 10)


def test_a_network_from_elsewhere_and_one_that_was_not_attacked_have_cards_too(
    api: httpx.Client, queue: Queue, problem_of
) -> None:
    trained = queue.trained()
    assert "It has not been attacked yet." in api.get(f"/checkpoints/{trained}/card").text
    file = api.get(f"/checkpoints/{trained}/file").content
    said = {"architecture": "resnet20", "dataset": "digits", "name": "*mine* <b>"}
    uploaded = api.post("/checkpoints", files={"file": ("net.safetensors", file)}, data=said).json()["id"]
    card = api.get(f"/checkpoints/{uploaded}/card").text
    assert "trained elsewhere; handed in as \\*mine\\* &lt;b>" in card
    problem_of(api.get("/checkpoints/ckpt_none/card"), 404)
