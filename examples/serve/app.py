"""A web service that classifies photographs, with sepconv and NumPy and no deep-learning library.

    python app.py efficientnet_lite0.sepconv     # what make_program.py writes
    curl -F picture=@cat.jpg http://127.0.0.1:8000/classify

A program may be called from many threads at once and does not hold Python's lock, so requests are
computed in threads. A network, a page and two routes; what is dangerous in pictures is dealt with
in `pictures.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pictures
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

import sepconv

__all__ = ["MOST_BYTES", "create"]

#: The most bytes of a request.
MOST_BYTES = 10 << 20
_TOP = 5
_PAGE = Path(__file__).with_name("page.html")
#: The page needs nothing from elsewhere, and may get nothing.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src blob: data:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


def create(program: Any, at_once: int | None = None) -> Starlette:
    """The application.

    Args:
        program: of pictures (n, size, size, 3) to probabilities, with its classes' names, in JSON,
            among its notes.
        at_once: how many pictures are decoded and classified at once; None for one a processor.
    """
    size, classes = program.inputs[0].shape[1], json.loads(program.notes["classes"])
    program(np.zeros((1, size, size, 3), np.float32))  # so that the first request is no slower
    limit = anyio.CapacityLimiter(at_once or len(os.sched_getaffinity(0)))

    def predict(data: bytes) -> dict[str, Any]:
        x = pictures.prepare(pictures.read(data), size)
        begun = time.perf_counter()
        probabilities = program(x[None])[0]
        seconds = time.perf_counter() - begun
        top = [
            {"name": classes[index], "probability": float(probabilities[index])}
            for index in probabilities.argsort()[::-1][:_TOP]
        ]
        return {"classes": top, "milliseconds": round(1e3 * seconds, 1)}

    async def classify(request: Request) -> Response:
        data = await _upload(request)
        try:
            return JSONResponse(await anyio.to_thread.run_sync(predict, data, limiter=limit))
        except pictures.PictureError as error:
            raise HTTPException(error.status, str(error)) from None

    async def page(request: Request) -> Response:
        headers = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"}
        return FileResponse(_PAGE, headers=headers)

    async def failed(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            return JSONResponse({"error": "The server failed."}, 500)
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    return Starlette(
        routes=[Route("/", page), Route("/classify", classify, methods=["POST"])],
        exception_handlers={HTTPException: failed, Exception: failed},
    )


async def _upload(request: Request) -> bytes:
    """The bytes of the form's file, of a request that is not too large."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise HTTPException(415, "Send a form (multipart/form-data) with a file named 'picture'.")
    received = 0

    async def bounded() -> Any:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > MOST_BYTES:
            # What is left of the request is not read.
            raise HTTPException(
                413, f"A request must have at most {MOST_BYTES:,} bytes.", {"Connection": "close"}
            )
        return message

    async with Request(request.scope, bounded).form(max_files=1, max_fields=1) as form:
        file = form.get("picture")
        if not isinstance(file, UploadFile):
            raise HTTPException(400, "The form has no file named 'picture'.")
        return await file.read()


def main() -> None:
    """Serves until it is interrupted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("program", help="a file that make_program.py has written")
    parser.add_argument("--host", default="127.0.0.1", help="(default: this machine alone)")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--at-once", type=int, help="pictures at once (default: one a processor)")
    options = parser.parse_args()
    app = create(sepconv.load(options.program), options.at_once)
    # Beyond so many connections it says 503 rather than to keep their uploads in memory.
    uvicorn.run(app, host=options.host, port=options.port, limit_concurrency=64, access_log=False)


if __name__ == "__main__":
    main()
