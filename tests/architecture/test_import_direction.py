"""Who may import whom: the rooms of the house, and the doors between them."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ROOMS = ("app", "worker", "models", "migrations", "tests", "benchmarks", "docs")
OURS = ("app", "worker", "models", "migrations", "benchmarks", "tests")
SCIENCE = ("worker.data", "worker.training", "worker.attacks", "worker.evaluation")

# A module may import from rooms on its list alone; the longest matching name counts.
MAY_IMPORT = {
    "models": {"models"},
    "app.domain": {"app.domain"},
    "app.settings": {"app.settings"},
    "app.logs": {"app.logs"},
    "app.processes": {"app.processes"},
    "app.storage": {"app.storage", "app.domain", "app.settings", "migrations"},
    "app.broker": {"app.broker", "app.settings"},
    "app.announcements": {"app.announcements", "app.broker", "app.storage"},
    "app.inference": {"app.inference", "app.domain", "app.storage", "models"},
    "app.reports": {"app.reports", "app.domain"},
    "app.dashboard": {"app.dashboard", "app.reports", "app.domain"},
    "app.client": {"app.client", "app.domain", "app.settings"},
    "app": {"app", "models", "migrations"},
    **{room: {*SCIENCE, "models", "app.domain"} for room in SCIENCE},
    "worker": {"worker", "models", "app.domain", "app.storage", "app.settings", "app.broker", "app.announcements",
               "app.logs", "app.processes"},
    "migrations": {"migrations", "app.storage"},
}  # fmt: skip
HEAVY = ("torch", "torchvision", "sqlalchemy", "fastapi", "starlette", "celery", "redis", "httpx")
MUST_NOT_LOAD = {
    "app.domain": HEAVY,
    "app.settings": HEAVY,
    "app.client": tuple(library for library in HEAVY if library != "httpx"),
    "app.reports": ("torch", "torchvision", "sqlalchemy", "fastapi", "celery"),
    "app.storage": ("torch", "torchvision", "fastapi", "celery"),
    **dict.fromkeys((*SCIENCE, "models"), ("sqlalchemy", "celery", "fastapi", "redis")),
}


def modules() -> Iterator[tuple[str, Path]]:
    for room in ("app", "worker", "models", "migrations"):
        for path in sorted((REPOSITORY / room).rglob("*.py")):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


@cache
def tree(path: Path) -> ast.Module:
    """A file, parsed once for all that is asked of it."""
    return ast.parse(path.read_text())


def imports_of(name: str, path: Path) -> Iterator[str]:
    """Every module an import statement names, wherever it stands; `from x import y` also names x.y where it is one."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
            submodules = [n for n in names if n in MODULES]
            # `from app.storage import runs` names app.storage.runs alone
            yield from submodules or [base]
            if 0 < len(submodules) < len(names):
                yield base


def lies_in(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def rule_for(module: str) -> set[str]:
    room = max((r for r in MAY_IMPORT if lies_in(module, r)), key=len)
    return MAY_IMPORT[room]


def wrong_imports(module: str, path: Path) -> list[str]:
    ours = [i for i in imports_of(module, path) if i.split(".")[0] in OURS]
    return [i for i in ours if not any(lies_in(i, room) for room in rule_for(module))]


def test_a_module_imports_only_from_the_rooms_open_to_it() -> None:
    found = {module: wrong_imports(module, path) for module, path in MODULES.items()}
    assert len(found) > 100
    assert {module: wrong for module, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize("room", sorted(MUST_NOT_LOAD))
def test_a_room_names_no_library_that_is_closed_to_it(room: str) -> None:
    named = {
        (module, library)
        for module, path in MODULES.items()
        if lies_in(module, room)
        for imported in imports_of(module, path)
        if (library := imported.split(".")[0]) in MUST_NOT_LOAD[room]
    }
    assert named == set()


@pytest.mark.parametrize(
    ("source", "module", "wrong"),
    [
        ("def f():\n    import worker.poll", "app.launcher", ["worker.poll"]),
        ("from worker import poll", "app.api.runs", ["worker.poll"]),
        ("from app.storage import runs", "app.domain.plan", ["app.storage.runs"]),
        ("if True:\n    from app.api.views import run", "worker.supervisor", ["app.api.views"]),
        ("from ..storage.runs import claim", "app.domain.plan", ["app.storage.runs"]),
        ("from app.storage import runs", "worker.attacks.pgd", ["app.storage.runs"]),
        ("from app.domain.plan import expand\nfrom models import registry", "worker.attacks.pgd", []),
    ],
)
def test_the_check_itself_sees_every_kind_of_import(
    source: str, module: str, wrong: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "module.py"
    path.write_text(source)
    assert wrong_imports(module, path) == wrong


def loaded_by(*names: str, then: str = "") -> set[str]:
    """Modules and their top-level libraries in a fresh process after these imports, and after what is done `then`."""
    script = f"import sys, {', '.join(names)}\n{then}\nprint(*sys.modules, *{{m.split('.')[0] for m in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_domain_and_the_storage_loads_no_torch() -> None:
    rooms = [m for m in MODULES if lies_in(m, "app.domain") or lies_in(m, "app.storage")]
    loaded = loaded_by(*rooms)
    assert "sqlalchemy" in loaded
    assert loaded.isdisjoint({"torch", "torchvision", "celery", "fastapi", "scipy"})


def test_importing_the_domain_loads_no_framework_at_all() -> None:
    loaded = loaded_by(*(m for m in MODULES if lies_in(m, "app.domain")))
    assert loaded.isdisjoint(HEAVY)


def test_the_client_loads_nothing_of_the_server() -> None:
    loaded = loaded_by("app.client")
    assert "httpx" in loaded
    assert loaded.isdisjoint({*HEAVY, "pydantic", "pandas", "numpy", "scipy"} - {"httpx"})


def test_the_api_starts_without_what_only_some_requests_need() -> None:
    needless = {"torch", "torchvision", "worker", "celery", "kombu", "scipy", "sklearn", "matplotlib", "pandas"}
    assert loaded_by("app.api.server").isdisjoint(needless)


def test_the_command_line_says_what_it_can_before_it_loads_what_that_takes() -> None:
    assert loaded_by("app.cli").isdisjoint({*HEAVY, "pydantic", "pydantic_settings", "numpy", "structlog", "alembic"})


def test_a_job_of_resnet_20_loads_no_torchvision_and_nothing_of_the_api() -> None:
    begin = "worker.training.seeding.make_deterministic(1)"
    of_each_kind = "[worker.run_job._job_of(k) for k in 'train branch quantise shard evaluate verify attack'.split()]"
    loaded = loaded_by("worker.run_job", "worker.training.seeding", then=f"{begin}; assert all({of_each_kind})")
    assert "torch" in loaded
    assert "torch._dynamo" not in loaded, "torch's compiler, which takes more than a second to import"
    assert loaded.isdisjoint({"torchvision", "fastapi", "uvicorn", "celery", "sklearn", "matplotlib", "pandas"})


def test_a_module_says_what_it_is_for() -> None:
    docstrings = {module: ast.get_docstring(tree(path)) for module, path in MODULES.items()}
    assert [module for module, docstring in docstrings.items() if not (docstring or "").strip()] == []


@pytest.mark.parametrize("room", ROOMS)
def test_the_room_exists(room: str) -> None:
    assert (REPOSITORY / room).is_dir()
