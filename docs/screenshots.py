r"""Takes the screenshots of docs/pages: six pages of real runs, in a headless Chromium.

Needs chromium and chromium-driver (apt-get install chromium chromium-driver), selenium and Pillow.
The runs take 4 CPU-minutes together:

    mia-jax --config=quickstart:quick --workdir=shots/quickstart
    mia-jax --config=dp_fashion_mnist:canaries=500,epochs=10 \
        --config.data.examples=5000 --workdir=shots/private
    mia-jax --workdir=shots/label_only --config=label_only:ndata=300,model=fc,epochs=40,\
    max_samples=200,source_samples=100,attacks=bnda,iterations=2,evaluations=20
    mia-jax --config=privacy_report:train=1000,test=1000,models=8,epochs=20 --workdir=shots/epochs
    mia-jax --config=zoo/least_squares:features=100,examples=500 --workdir=shots/regression
    mia-jax --config=quickstart:quick,epochs=10 --workdir=shots/short
    mia-jax --config=quickstart:quick --config.model.dropout=0.5 --workdir=shots/dropout
    mia-jax compare shots/quickstart shots/short shots/dropout -o shots/compare.html

Then `python docs/screenshots.py shots` renders the five reports again, so that they are written by
the present templates, and takes the pictures. One that is missing is named and left out.
"""

from __future__ import annotations

import argparse
import base64
import io
import pathlib
import shutil
import tempfile
from typing import NamedTuple

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By

import mia_jax.report
from mia_jax.report import html

WIDTH, HEIGHT, COLORS = 1280, 1000, 64


class Shot(NamedTuple):
    """A picture: its name, the page, the section that is opened (else the first screen), the theme
    and the largest height in pixels.
    """

    name: str
    page: str
    section: str = ""
    theme: str = "light"
    height: int = HEIGHT


SHOTS = (
    Shot("quickstart", "quickstart"),
    Shot("quickstart_dark", "quickstart", theme="dark"),
    Shot("quickstart_scope", "quickstart", "section-scope"),
    Shot("private", "private"),
    Shot("private_audit", "private", "section-privacy_audit"),
    Shot("label_only", "label_only"),
    Shot("epochs", "epochs"),
    Shot("epochs_figure", "epochs", "section-epochs"),
    Shot("regression", "regression"),
    Shot("comparison", "compare"),
    Shot("comparison_front", "compare", "pareto"),
)


def main() -> None:
    """Writes every picture whose page exists."""
    parser = argparse.ArgumentParser(description="Takes the screenshots of docs/pages.")
    parser.add_argument("runs", type=pathlib.Path, help="the folder of the runs")
    parser.add_argument("-o", "--out", type=pathlib.Path, default="docs/pages", help="their folder")
    parser.add_argument("--only", default="", help="names, such as quickstart,private")
    arguments = parser.parse_args()
    only = set(filter(None, arguments.only.split(",")))
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        driver = browser(profile)
        try:
            for shot in SHOTS:
                page = render(arguments.runs, shot.page, folder=pathlib.Path(profile))
                if page is None or (only and shot.name not in only):
                    print(f"{shot.name}: {'left out' if page else 'its page is missing'}")
                    continue
                path = arguments.out / f"{shot.name}.png"
                path.write_bytes(small(picture(driver, page, shot)))
                print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")
        finally:
            driver.quit()


def render(runs: pathlib.Path, name: str, *, folder: pathlib.Path) -> pathlib.Path | None:
    """Returns the page of a run, made from its report.json, or of a comparison as it is."""
    if (runs / f"{name}.html").exists():
        return (runs / f"{name}.html").resolve()
    if not (runs / name / "report" / "report.json").exists():
        return None
    page = folder / f"{name}.html"
    page.write_text(html.report(mia_jax.report.read(runs / name)), encoding="utf-8")
    return page


def browser(profile: str) -> webdriver.Chrome:
    """Starts a headless Chromium of the width of the pictures."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage",
                 "hide-scrollbars", f"window-size={WIDTH},{HEIGHT}",
                 f"user-data-dir={profile}/profile"):  # fmt: skip
        options.add_argument(f"--{flag}")
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))


def picture(driver: webdriver.Chrome, page: pathlib.Path, shot: Shot) -> bytes:
    """Returns the PNG of a page's first screen, or of a section, which is opened."""
    size = dict(width=WIDTH, height=shot.height, deviceScaleFactor=1, mobile=False)
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    theme = dict(features=[dict(name="prefers-color-scheme", value=shot.theme)])
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", theme)
    driver.get(page.as_uri())
    clip = dict(x=0, y=0, width=WIDTH, height=shot.height, scale=1)
    if shot.section:
        section = driver.find_element(By.ID, shot.section)
        driver.execute_script("arguments[0].open = true", section)
        # The figures of a section are drawn when it is seen.
        driver.execute_script("arguments[0].scrollIntoView()", section)
        driver.execute_async_script("setTimeout(arguments[0], 500)")
        top, tall = driver.execute_script(
            "const box = arguments[0].getBoundingClientRect();"
            "return [box.top + window.scrollY, box.height]",
            section,
        )
        clip |= dict(y=max(0, top - 8), height=min(shot.height, tall + 16))
    settings = dict(format="png", clip=clip, captureBeyondViewport=bool(shot.section))
    return base64.b64decode(driver.execute_cdp_cmd("Page.captureScreenshot", settings)["data"])


def small(png: bytes) -> bytes:
    """Returns the PNG with few colors, which text and lines need."""
    image = Image.open(io.BytesIO(png)).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
    written = io.BytesIO()
    image.save(written, "PNG", optimize=True)
    return written.getvalue()


if __name__ == "__main__":
    main()
