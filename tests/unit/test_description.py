"""One description out of several."""

from gateway.description import merged


def test_the_whole_has_the_calls_and_the_schemas_of_all_parts() -> None:
    one = {"openapi": "3.1.0", "info": {"title": "Modelyard"}, "paths": {"/health": 1, "/a": 2}, "components": {"schemas": {"A": 3}}}
    two = {"openapi": "3.1.0", "info": {"title": "Modelyard"}, "paths": {"/health": 1, "/b": 4}}
    assert merged([one, two]) == {
        "openapi": "3.1.0",
        "info": {"title": "Modelyard"},
        "paths": {"/health": 1, "/a": 2, "/b": 4},
        "components": {"schemas": {"A": 3}},
    }
    assert one["paths"] == {"/health": 1, "/a": 2}
