"""Apps with pages of their own, uploaded and used in a real browser by a member: Gradio and Streamlit."""

import re
from collections.abc import Iterator

import pytest
from app_sites import deploy, owner_of, signed_in
from browsing import SLOW_MS, Site, open_site
from playwright.sync_api import Page, expect
from yard import zipped

pytestmark = [pytest.mark.browser, pytest.mark.sandbox]

GRADIO = zipped(
    {
        "modelyard.toml": b'[app]\ncommand = "env GRADIO_SERVER_PORT=$PORT python app.py"\n',
        "requirements.txt": b"gradio>=5\n",
        "app.py": b"""
import gradio as gr

def greet(name: str, request: gr.Request) -> str:
    return f"Hello {name}, says {request.headers['x-modelyard-user']}"

with gr.Blocks(analytics_enabled=False) as demo:
    name, greeting = gr.Textbox(label="Name"), gr.Textbox(label="Greeting")
    gr.Button("Greet").click(greet, name, greeting)

demo.launch()
""",
    }
)
STREAMLIT = zipped(
    {
        "modelyard.toml": b'[app]\ncommand = "streamlit run app.py --server.port $PORT --server.headless true --browser.gatherUsageStats false"\n',
        "requirements.txt": b"streamlit>=1.40\n",
        "app.py": b"""
import streamlit as st

name = st.text_input("Name")
st.write(f"Hello {name}, says {st.context.headers.get('X-Modelyard-User')}")
st.session_state.clicks = st.session_state.get("clicks", 0) + st.button("Count")
st.write(f"Counted {st.session_state.clicks}")
""",
    }
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("site")) as opened:
        yield opened


@pytest.fixture(scope="module")
def mia(site: Site) -> Iterator[Page]:
    """A page of a member's browser."""
    deploy(site, "mia", "greeter", GRADIO)
    deploy(site, "mia", "counter", STREAMLIT)
    with signed_in(site, "mia") as context:
        yield context.new_page()


def test_a_gradio_app_answers(site, mia):
    mia.goto(f"{site.url}/open/mia/greeter")
    assert re.fullmatch(r"http://greeter-[0-9a-f]{12}\.apps\.localhost:\d+/", mia.url)
    mia.get_by_label("Name").fill("Ada")
    mia.get_by_role("button", name="Greet").click()
    expect(mia.get_by_label("Greeting")).to_have_value("Hello Ada, says mia", timeout=SLOW_MS)


def test_a_streamlit_app_answers_over_its_websocket(site, mia):
    with mia.expect_websocket() as opened:
        mia.goto(f"{site.url}/open/mia/counter")
    assert re.fullmatch(r"ws://counter-[0-9a-f]{12}\.apps\.localhost:\d+/_stcore/stream", opened.value.url)
    mia.get_by_label("Name").fill("Ada")
    mia.get_by_label("Name").press("Enter")
    expect(mia.get_by_text("Hello Ada, says mia")).to_be_visible(timeout=SLOW_MS)
    for count in (1, 2):
        mia.get_by_role("button", name="Count").click()
        expect(mia.get_by_text(f"Counted {count}")).to_be_visible(timeout=SLOW_MS)


def test_a_page_that_is_open_keeps_its_model_running_and_comes_back_without_the_console(site, mia):
    mia.goto(f"{site.url}/open/mia/counter")
    expect(mia.get_by_text("Counted 0")).to_be_visible(timeout=SLOW_MS)
    asked: list[str] = []
    mia.on("request", lambda request: asked.append(request.url))
    mia.reload()
    expect(mia.get_by_text("Counted 0")).to_be_visible(timeout=SLOW_MS)
    with owner_of(site) as http:
        assert http.get("/models/mia/counter").json()["state"] == "running"
    assert [url for url in asked if url.startswith(site.url)] == []


def test_a_browser_that_nobody_signed_in_is_led_to_the_log_in(site, mia):
    mia.goto(f"{site.url}/open/mia/counter")
    host = mia.url
    stranger = site.browser.new_context()
    page = stranger.new_page()
    page.goto(host)
    assert re.fullmatch(r"http://localhost:\d+/login\?next=%2Fopen%2Fcounter-[0-9a-f]{12}", page.url)
    stranger.close()
