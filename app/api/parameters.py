"""Query parameters that an operation does not have are refused: a misspelt filter would leave nothing out."""

from fastapi import Request
from fastapi.dependencies.models import Dependant

from app.domain.errors import InvalidInput, Problem, suggestion


async def known_parameters(request: Request) -> None:
    """Raises InvalidInput for each parameter in the query that is unknown, naming those that there are."""
    if not request.scope["query_string"]:
        return
    known = names_of(request.scope["route"].dependant)
    unknown = [name for name in dict.fromkeys(request.query_params) if name not in known]
    if unknown:
        raise InvalidInput([_unknown(name, known) for name in unknown])


def names_of(dependant: Dependant) -> set[str]:
    """The query parameters of an operation, and of all that it depends on."""
    return {p.alias for p in dependant.query_params}.union(*map(names_of, dependant.dependencies))


def _unknown(name: str, known: set[str]) -> Problem:
    there_are = suggestion(name, known) if known else "; this address takes none"
    return Problem(f"/{name.replace('~', '~0').replace('/', '~1')}", f"in the query: no such parameter{there_are}")
