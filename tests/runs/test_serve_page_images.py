"""The service's page with images, in the system's Chromium."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from served import served
from tiny_vision_models import build_vision_base, write_image

from medqlora.config.serving import ServeOptions
from medqlora.models import LoRA, VisionLanguage

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: install it to see the page in a browser"),
]


def adapter(folder: Path) -> str:
    """An adapter of a tiny LLaVA, with the record that a fit writes."""
    backend = VisionLanguage(str(build_vision_base(folder / "base", "llava")), quantization="none")
    model: Any = backend.load(
        lora=LoRA(r=2), adapter=None, device=torch.device("cpu"), dtype=torch.float32, seed=0
    )
    model.save_pretrained(folder / "adapter")
    record = {
        "base": backend.base,
        "base_identity": backend.identity(),
        "backend": "VisionLanguage",
        "backend_options": {"base": backend.base, "quantization": "nf4"},
        "prompt": {"name": "medical"},
        "data": {"max_prompt_tokens": 200, "with_contexts": False},
        "labels": ["yes", "no"],
    }
    (folder / "adapter" / "medqlora.json").write_text(json.dumps(record), encoding="utf-8")
    return str(folder / "adapter")


def test_each_answer_stays_with_the_images_that_were_asked_about(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    pictures = [write_image(tmp_path / f"{name}.png", number) for number, name in enumerate(("one", "two"))]
    options = ServeOptions(device="cpu", max_new_tokens=4)
    with served(options, {"xr": adapter(tmp_path)}) as service, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(service.url)
        page.wait_for_selector("#pictures:not([hidden])")
        for number, picture in enumerate(pictures, 1):
            if page.is_visible("#unpicture"):
                page.click("#unpicture")
            page.set_input_files("#image", [str(picture)])
            page.wait_for_selector("#thumbnails img")
            page.fill("#question", "Is there one?")
            page.keyboard.press("Control+Enter")
            page.wait_for_function(f"() => document.querySelectorAll('#history li').length === {number}")
            assert page.locator("#seen img").get_attribute("alt") == picture.name
        page.click("#unpicture")
        names = page.locator("#history button span").all_inner_texts()
        assert names == ["Is there one? (two.png)", "Is there one? (one.png)"]
        page.locator("#history button").nth(1).click()
        assert page.locator("#seen img").get_attribute("alt") == "one.png"
        page.fill("#question", "And without a picture?")
        page.keyboard.press("Control+Enter")
        page.wait_for_function("() => document.querySelectorAll('#history li').length === 3")
        assert not page.is_visible("#seen")
        assert complaints == []
        browser.close()
