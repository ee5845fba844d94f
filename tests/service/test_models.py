"""What the listings show of models, versions and builds."""

import pytest
from stage import Stage, app_zip, pages, zipped

from upload_service.builders import BuildError, Log


def fail(_: Log) -> None:
    raise BuildError("crashed_at_start", "The app ended.", "See its last lines.")


def test_an_unknown_user_has_no_models(stage: Stage) -> None:
    assert stage.http.get("/models/nobody").json() == {"models": []}
    assert stage.http.get("/models/No%20Name%00").json() == {"models": []}


def test_a_user_s_models_stand_by_name_each_by_its_newest_upload(stage: Stage) -> None:
    stage.ready("pears")
    stage.ready("apples")
    stage.ready("plums", owner="eve")
    second = stage.upload("pears", app_zip("second")).json()
    models = stage.http.get("/models/ada").json()["models"]

    assert [(each["model_name"], each["version"], each["status"]) for each in models] == [("apples", 1, "ready"), ("pears", 2, "received")]
    assert models[1] == second
    assert {"id", "username", "model_name", "description", "docker_image", "docker_container_id", "status", "created_at", "version"} <= set(
        models[0]
    )


def test_a_model_shows_its_versions_what_serves_and_what_was_found(stage: Stage) -> None:
    first = stage.ready(content=app_zip("a"))
    stage.builder.acts["verify"] = fail
    second = stage.upload(content=app_zip("b")).json()
    stage.step("builds")
    shown = stage.http.get("/models/ada/fruit").json()

    assert [(each["id"], each["status"]) for each in shown["versions"]] == [(second["id"], "failed"), (first["id"], "ready")]
    assert (shown["id"], shown["serving"], shown["state"]) == (second["id"], 1, "stopped")
    assert (shown["reason"], shown["mend"]) == ("crashed_at_start", "See its last lines.")
    assert shown["found"] == "found: Flask app `app:app` in app.py, requirements.txt, port 8080"
    assert (shown["settings"]["limits"]["memory_bytes"], shown["settings"]["idle"]["freeze_s"]) == (1 << 30, 60.0)


def test_a_model_that_is_not_ready_yet_has_its_upload_s_state(stage: Stage) -> None:
    stage.upload()
    shown = stage.http.get("/models/ada/fruit").json()

    assert (shown["serving"], shown["state"], shown["status"]) == (None, "received", "received")


def test_a_slower_build_of_an_older_version_never_takes_over(stage: Stage) -> None:
    stage.upload(content=app_zip("a"))
    slow = stage.claims.claim()
    assert slow is not None
    stage.ready(content=app_zip("b"))
    assert stage.http.get("/models/ada/fruit").json()["serving"] == 2
    stage.claims.expire_all()
    stage.step("builds")

    shown = stage.http.get("/models/ada/fruit").json()
    assert [each["status"] for each in shown["versions"]] == ["ready", "ready"]
    assert shown["serving"] == 2


def test_an_app_s_own_settings_are_shown_and_ceilings_hold(stage: Stage) -> None:
    files = {"app.py": b"from flask import Flask\napp = Flask(__name__)\n", "requirements.txt": b"flask\n"}
    stage.upload(content=zipped({**files, "modelyard.toml": b"[app]\nport = 5000\n[limits]\nmemory = '512MiB'\n"}))
    refused = stage.upload(content=zipped({**files, "modelyard.toml": b"[limits]\nmemory = '900GiB'\n"}))
    shown = stage.http.get("/models/ada/fruit").json()

    assert (shown["settings"]["limits"]["memory_bytes"], shown["found"].endswith("port 5000")) == (512 << 20, True)
    assert (refused.status_code, stage.http.get("/models/ada/fruit").json()["version"]) == (422, 1)


@pytest.mark.leaves_nothing
@pytest.mark.parametrize("path", ["/models/ada/fruit", "/builds/nothing", "/builds/nothing/log"])
def test_what_is_not_there_is_404(stage: Stage, path: str) -> None:
    answer = stage.http.get(path)

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.leaves_nothing
def test_the_description_of_all_calls_names_the_upload_s_form(stage: Stage) -> None:
    told = stage.http.get("/openapi.json").json()

    assert told["paths"]["/upload"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]["required"] == [
        "model_name",
        "file",
    ]
    assert {
        "/models",
        "/models/{username}",
        "/models/{username}/{model_name}",
        "/models/{upload_id}",
        "/builds/{build_id}/log",
        "/health",
    } <= set(told["paths"])


def test_a_long_list_is_walked_page_by_page(stage: Stage) -> None:
    names = [f"model-{n}" for n in range(5)]
    for name in names:
        stage.ready(name, content=app_zip(name))
    for path in ("/models/ada?limit=2", "/models?limit=2"):
        assert pages(stage.http, path) == [["ada/model-0", "ada/model-1"], ["ada/model-2", "ada/model-3"], ["ada/model-4"]]
    assert stage.http.get("/models/ada").json()["models"][-1]["model_name"] == names[-1]
    for wrong in ("limit=0", "limit=101", "cursor=%21", "cursor=QQ"):
        assert {stage.http.get(f"{path}?{wrong}").status_code for path in ("/models", "/models/ada")} == {422}
