"""Take the README's picture: `python docs/picture.py`, once the runs of "A real model" are there (`--runs` says where).

Serves two variants with `harness serve`, asks both in the page's arena, in a real browser, judges their answers, and
photographs it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent / "recipes" / "smollm2"), str(DOCS.parent / "bench")]

from _page import served  # noqa: E402
from messages import ASK  # noqa: E402

VARIANTS = ("json@base", "json")
SIZE = {"width": 1280, "height": 840}
MESSAGE = "Good evening! Could we sit outside on Saturday? We are 7, the name is Emma Hill."
RIGHT = '{"name": "Emma Hill", "people": "7", "day": "Saturday"}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the runs are")
    parser.add_argument("--out", type=Path, default=DOCS / "images" / "page.png")
    args, engine = parser.parse_known_args()  # what else is given goes to `harness serve`: --set cpu_threads=2
    with (
        tempfile.TemporaryDirectory() as folder,  # so that no vote is kept
        served(args.runs.resolve(), Path(folder) / "serve.log", *VARIANTS, *engine) as url,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport=SIZE, device_scale_factor=2)
        page.goto(url)
        page.locator(".pane .chat").nth(1).wait_for()
        page.locator("#mode label", has_text="Arena").click()
        page.locator("#skip, .chat[data-variant=A]").first.wait_for()
        ask(page, ASK.format(keys="name, people, day", message=MESSAGE))
        judge(page)
        page.screenshot(path=args.out)
        browser.close()
    print(f"{args.out}: {args.out.stat().st_size:,} bytes")


def ask(page: Page, text: str) -> None:
    """Ask, and wait until every answer has ended."""
    page.fill("#prompt textarea", text)
    page.keyboard.press("Enter")
    page.locator("#verdicts button:visible").first.wait_for(timeout=120_000)


def judge(page: Page) -> None:
    """Prefer the answer that is what was asked for, for its format."""
    is_right = [answer.strip() == RIGHT for answer in page.locator(".pane .source").all_text_contents()]
    page.locator(f"#best-{is_right.index(True)}").click()
    page.locator("#reasons label", has_text="better format").click()
    page.locator("#reasons label.selected").wait_for()
    page.mouse.move(0, 0)


def chromium() -> str:
    names = (os.environ.get("HARNESS_CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    browser = next((path for name in names if name and (path := shutil.which(name))), None)
    return browser or sys.exit("no chromium: name one with HARNESS_CHROMIUM=/path/to/chromium")


if __name__ == "__main__":
    main()
