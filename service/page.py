"""The playground at `/`, and the API's documentation at `/docs`: everything that they load comes from here."""

from __future__ import annotations

from pathlib import Path

import fastapi_offline
from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.staticfiles import StaticFiles

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""No script and no style but our own files; a text cannot become markup, whatever it holds."""
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_PAGE = StaticFiles(directory=Path(__file__).parent / "playground")
_SWAGGER = StaticFiles(directory=Path(fastapi_offline.__file__).parent / "static")

router = APIRouter(include_in_schema=False)


@router.api_route("/", methods=["GET", "HEAD"])
async def home(request: Request) -> Response:
    return await page_file(request, "index.html")


@router.api_route("/playground/{path:path}", methods=["GET", "HEAD"])
async def page_file(request: Request, path: str) -> Response:
    response = await _PAGE.get_response(path, request.scope)
    response.headers.update(_HEADERS)
    return response


@router.get("/docs")
async def docs(request: Request) -> Response:
    app = request.app
    return get_swagger_ui_html(
        openapi_url=app.openapi_url,
        title=app.title,
        swagger_js_url="/docs/swagger-ui-bundle.js",
        swagger_css_url="/docs/swagger-ui.css",
        swagger_favicon_url="/playground/icon.svg",
    )


@router.api_route("/docs/{path}", methods=["GET", "HEAD"])
async def docs_file(request: Request, path: str) -> Response:
    return await _SWAGGER.get_response(path, request.scope)
