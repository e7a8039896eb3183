"""Drops a picture on the service's page in a headless Chromium, and takes a picture of the page.

    pip install playwright
    python app.py efficientnet_lite0.sepconv                 # in another terminal
    python look.py cat.jpg page.png --chromium /usr/bin/chromium

Without --chromium, the one that `playwright install chromium` has installed. It ends with an error
if the page shows none of the classes, or asks for anything from elsewhere.
"""

from __future__ import annotations

import argparse
import base64
import sys
from pathlib import Path

#: A drop, as the page gets it from a person's mouse.
_DROP = """([data, name]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], name));
  document.getElementById("drop").dispatchEvent(
    new DragEvent("drop", {dataTransfer, bubbles: true, cancelable: true}));
}"""


def main() -> int:
    """Returns 0 if the page shows classes, else 1."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("screenshot", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000/")
    parser.add_argument("--chromium", help="the program's path")
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium)
        page = browser.new_page(viewport={"width": 800, "height": 900})
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(options.url)
        data = base64.b64encode(options.picture.read_bytes()).decode()
        page.evaluate(_DROP, [data, options.picture.name])
        page.locator("#classes li, #said.error").first.wait_for()
        said = page.inner_text("#said")
        rows = page.locator("#classes li").all_inner_texts()
        page.screenshot(path=options.screenshot)
        browser.close()
    foreign = [url for url in asked if not url.startswith((options.url, "blob:", "data:"))]
    print(said, *(" ".join(row.split()) for row in rows), *problems, *foreign, sep="\n")
    return int(not rows or bool(problems) or bool(foreign))


if __name__ == "__main__":
    sys.exit(main())
