"""The picture of a report that the README shows: `make picture`.

It does the whole job on the embedded corpus, opens the report in Chromium and keeps its upper part in nbs/images/report.png."""
import io
import subprocess
import sys
import tempfile
from pathlib import Path

from browser import chromium, serve
from PIL import Image, ImageOps

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "nbs" / "images" / "report.png"
WIDTH, SCALE = 880, 1.5


def picture(folder: Path, colours: int = 48) -> bytes:
    "A report from its top to the end of its first figure, as a PNG of few colours and few bytes."
    with serve(folder) as address, chromium() as page:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "light"}]})
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", dict(width=WIDTH, height=900, deviceScaleFactor=SCALE, mobile=False))
        page.get(address + "index.html")
        bottom = page.execute_script("return Math.ceil(document.querySelector('figure').getBoundingClientRect().bottom) + 12")
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", dict(width=WIDTH, height=bottom, deviceScaleFactor=SCALE, mobile=False))
        shot = Image.open(io.BytesIO(page.get_screenshot_as_png())).convert("RGB")
    # a frame, for pages as white as the report
    shot = ImageOps.expand(shot, 2, "#d0d7de")
    shot.quantize(colours, dither=Image.Dither.NONE).save(out := io.BytesIO(), "PNG", optimize=True)
    return out.getvalue()


def main() -> None:
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tmp) / "run"
        if not (folder / "index.html").is_file():
            run = "from behaviour_sim.cli import main; main()"
            subprocess.run([sys.executable, "-c", run, "run", "--preset", "tiny", "--pictures", "0", "--out", str(folder)], check=True)
        PICTURE.parent.mkdir(exist_ok=True)
        PICTURE.write_bytes(picture(folder))
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
