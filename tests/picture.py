"""The pictures that the README shows: `make picture`.

It does the whole job on the embedded corpus, opens the report in Chromium and keeps its upper part in nbs/images/report.png;
then it starts the app, types a draft, and keeps what a person sees in nbs/images/app.png."""
import io
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from browser import chromium, running, serve, settled, type_in
from PIL import Image, ImageOps

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "nbs" / "images"
MAIN = [sys.executable, "-c", "from behaviour_sim.apps.cli import main; main()"]
SCALE = 1.5
DRAFT = dict(company="portmere fc", username="PortmereFC", content="Full time! What a night, thank you for the noise. See you all on Saturday. #PFC https://example.com")


def size(page, width: int, height: int) -> None:
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", dict(width=width, height=height, deviceScaleFactor=SCALE, mobile=False))


@contextmanager
def opened(address: str, width: int):
    "A page in daylight."
    with chromium() as page:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "light"}]})
        size(page, width, 900)
        page.get(address)
        yield page


def keep(page, width: int, below: str, name: str, colours: int = 48) -> None:
    "The page from its top to the end of the first element `below`, as a PNG of few colours and few bytes."
    size(page, width, page.execute_script("return Math.ceil(document.querySelector(arguments[0]).getBoundingClientRect().bottom) + 12", below))
    shot = Image.open(io.BytesIO(page.get_screenshot_as_png())).convert("RGB")
    # a frame, for pages as white as these
    shot = ImageOps.expand(shot, 2, "#d0d7de")
    IMAGES.mkdir(exist_ok=True)
    shot.quantize(colours, dither=Image.Dither.NONE).save(path := IMAGES / name, "PNG", optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")


def report(folder: Path) -> None:
    with serve(folder) as address, opened(address + "index.html", 880) as page:
        keep(page, 880, "figure", "report.png")


def app() -> None:
    "The page of `make app` when a draft has been typed."
    with running() as port, opened(f"http://127.0.0.1:{port}/", 1100) as page:
        for name, text in DRAFT.items():
            type_in(page, name, text)
        settled(page)
        keep(page, 1100, "#best", "app.png")


def main() -> None:
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tmp) / "run"
        if not (folder / "index.html").is_file():
            subprocess.run([*MAIN, "run", "--preset", "tiny", "--pictures", "0", "--out", str(folder)], check=True)
        report(folder)
    app()


if __name__ == "__main__":
    main()
