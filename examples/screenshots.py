"""Takes pictures of a run's TensorBoard, of a test's report and of `medqlora data`'s page, at desktop and phone width.

    python examples/screenshots.py lightning_logs --report lightning_logs/version_1/report.html --out pictures
    python examples/screenshots.py --look data_look.html --out docs/images

Needs Playwright (`pip install playwright`) and a Chromium: the one that `playwright install chromium` fetches, or the
system's. Without Playwright only the report is taken, by Chromium itself. Nothing outside this machine is asked.
"""

import argparse
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: width, height in CSS pixels
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
#: TensorBoard's pages: the part of its address, and what is there when it is drawn
PAGES = {
    "timeseries": ("timeseries", "card-view"),
    "hparams": ("hparams", "hparams-main, tf-hparams-main"),
    "images": ("images", "tf-image-loader img"),
    "text": ("text", "tf-text-dashboard table, text-dashboard table"),
}
PATIENCE_S = 60.0


def main() -> int:
    options = parser().parse_args()
    chromium = options.chromium or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        if chromium is None:
            print("no Playwright and no Chromium here: pip install playwright", file=sys.stderr)
            return 2
        print("no Playwright here: the report alone is taken", file=sys.stderr)
        for name, size in SIZES.items():
            if options.report is not None:
                by_chromium(chromium, options.report, size, options.out / f"report-{name}.png")
        return 0
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        if options.report is not None:
            for name, size in SIZES.items():
                take_report(browser, options.report, size, options.out, name)
        if options.look is not None:
            take_look(browser, options.look, options.out)
        if options.logdir is not None:
            with tensorboard(options.logdir) as address:
                for name, size in SIZES.items():
                    take_tensorboard(browser, address, size, options.out, name)
        browser.close()
    return 0


def parser() -> argparse.ArgumentParser:
    """The script's options."""
    made = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    made.add_argument("logdir", nargs="?", type=Path, help="TensorBoard's folder, as lightning_logs")
    made.add_argument("--report", type=Path, help="a report.html")
    made.add_argument("--look", type=Path, help="a data_look.html of `medqlora data`")
    made.add_argument("--out", type=Path, default=Path("pictures"), help="folder of the PNG files")
    made.add_argument("--chromium", help="the browser's program, where it is not found by itself")
    return made


def take_report(browser: Any, report: Path, size: tuple[int, int], out: Path, name: str) -> None:
    """The top of the page, light and dark; and its table of questions with an opened row."""
    for scheme in ("light", "dark"):
        page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        page.goto(report.resolve().as_uri())
        save(page, out / f"report-{name}-{scheme}.png")
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if wide > 0:
            print(f"report at {name} width: the page is {wide} pixels too wide", file=sys.stderr)
        if scheme == "light":
            page.evaluate("document.querySelector('section .figures')?.parentElement.scrollIntoView()")
            save(page, out / f"report-{name}-curves.png")
            take_questions(page, out / f"report-{name}-questions.png")
        page.close()


def take_look(browser: Any, look: Path, out: Path) -> None:
    """Tokens with their loss mask and the packing of the first steps, as docs/images has them."""
    page = browser.new_page(viewport={"width": 1000, "height": 300}, color_scheme="light")
    page.goto(look.resolve().as_uri())
    page.evaluate(
        """() => {
            const kept = ["Tokens and loss mask", "Packing of the first steps"];
            for (const part of [...document.querySelectorAll("body > *, main > *, section")]) {
                const title = part.querySelector("h2")?.textContent;
                if (!part.querySelector("section") && !kept.includes(title)) part.remove();
            }
            document.querySelectorAll("article").forEach((part, place) => { if (place > 1) part.remove(); });
        }"""
    )
    path = out / "data-look.png"
    page.screenshot(path=str(path), full_page=True)
    print(f"{path}  {path.stat().st_size / 1000:.0f} kB")
    page.close()


def take_questions(page: Any, path: Path) -> None:
    """The table of questions, the least sure answer first and unfolded; nothing where the page has no such table."""
    table = page.locator(".browse:not([hidden])").first
    if table.count() == 0:
        return
    table.locator("select[name=sort]").select_option("unsure")
    table.evaluate("box => box.scrollIntoView()")
    table.locator("tbody summary").first.click()
    save(page, path)


def take_tensorboard(browser: Any, address: str, size: tuple[int, int], out: Path, name: str) -> None:
    """One picture of each of TensorBoard's pages that a run fills."""
    for label, (part, drawn) in PAGES.items():
        page = browser.new_page(viewport={"width": size[0], "height": size[1]})
        page.goto(f"{address}#{part}")
        try:
            page.locator(drawn).first.wait_for(timeout=PATIENCE_S * 1000)
        except Exception as error:  # Playwright's TimeoutError: the picture shows what is there instead
            print(f"TensorBoard's {label}: {str(error).splitlines()[0]}", file=sys.stderr)
        page.wait_for_timeout(2500)  # the charts draw after their frames
        save(page, out / f"tensorboard-{label}-{name}.png")
        page.close()


def save(page: Any, path: Path) -> None:
    page.screenshot(path=str(path))
    print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


def by_chromium(chromium: str, report: Path, size: tuple[int, int], path: Path) -> None:
    """A picture without Playwright."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--window-size={size[0]},{size[1]}"]
    subprocess.run([chromium, *options, f"--screenshot={path}", report.resolve().as_uri()], check=True)
    print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


@contextmanager
def tensorboard(logdir: Path) -> Iterator[str]:
    """TensorBoard on a free port of this machine, as long as the block runs; its address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    words = ["tensorboard.main", "--logdir", str(logdir), "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}/"
    try:
        wait_until(lambda: answers(f"{address}data/runs"), f"TensorBoard on {logdir}")
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


def answers(address: str) -> bool:
    """Whether TensorBoard has read its runs."""
    try:
        with urllib.request.urlopen(address, timeout=5) as reply:
            return len(reply.read()) > 4
    except (urllib.error.URLError, OSError):
        return False


def wait_until(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > end:
            raise SystemExit(f"{what} did not start within {PATIENCE_S:.0f} s")
        time.sleep(0.5)


if __name__ == "__main__":
    raise SystemExit(main())
