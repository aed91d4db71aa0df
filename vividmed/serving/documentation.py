"""A page that documents the routes, made from their OpenAPI description; it loads nothing from other servers."""

import json
from typing import Any

import jinja2
from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse

_PAGE = jinja2.Environment(autoescape=True).from_string("""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ info.title }} {{ info.version }}</title>
<style>
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
pre { overflow: auto; padding: .5rem; border: 1px solid #8888; border-radius: .25rem }
summary { cursor: pointer } h2 code { font-size: 1.1rem }
</style>
<h1>{{ info.title }} {{ info.version }}</h1>
<p>{{ info.description }}</p>
<p>The same for programs: <a href="openapi.json">openapi.json</a></p>
{% for path, operations in paths.items() %}{% for method, operation in operations.items() %}
<h2><code>{{ method | upper }} {{ path }}</code></h2>
<p>{{ operation.summary }}</p>
{% for type, content in operation.get("requestBody", {}).get("content", {}).items() %}
<details><summary>Body: <code>{{ type }}</code></summary><pre>{{ resolved(content.schema) }}</pre></details>
{% endfor %}
{% for status, response in operation.responses.items() %}{% for type, content in response.get("content", {}).items() %}
<details><summary>{{ status }}: <code>{{ type }}</code> {{ response.description }}</summary>
<pre>{{ resolved(content.schema) }}</pre></details>
{% endfor %}{% endfor %}
{% endfor %}{% endfor %}
</html>
""")


def documentation_router(app: FastAPI) -> APIRouter:
    """The route of the page."""
    router = APIRouter()

    @router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(render_documentation(app.openapi()))

    return router


def render_documentation(schema: dict[str, Any]) -> str:
    """Write an OpenAPI description as a page."""
    definitions = schema["components"]["schemas"]

    def resolved(value: Any) -> str:
        return json.dumps(_resolve(value, definitions, 0), indent=2, ensure_ascii=False)

    return _PAGE.render(info=schema["info"], paths=schema["paths"], resolved=resolved)


def _resolve(value: Any, definitions: dict[str, Any], depth: int) -> Any:
    """Put definitions in place of references to them."""
    if isinstance(value, dict):
        reference = value.get("$ref")
        if isinstance(reference, str) and depth < 12:
            return _resolve(definitions[reference.rpartition("/")[2]], definitions, depth + 1)
        return {key: _resolve(item, definitions, depth + 1) for key, item in value.items() if key != "title"}
    if isinstance(value, list):
        return [_resolve(item, definitions, depth + 1) for item in value]
    return value
