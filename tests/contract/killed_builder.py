"""A builder in a process of its own, to be killed: `killed_builder.py FOLDER YARD INDEX_URL ZIP`; prints a line before it begins."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from builder_grounds import Lines, plan
from parts.thread_runtime import ThreadRuntime

from modelyard.run.settings import BuildSettings
from upload_service.builders import Source
from upload_service.docker_builder import DockerBuilder
from upload_service.docker_engine import DockerEngine


def main() -> None:
    """Build one version after the other, each with another environment's key, until somebody ends it."""
    folder, yard, index_url, archive = Path(sys.argv[1]), *sys.argv[2:]
    settings = BuildSettings(index_url=index_url, ca_bundle=None, network="host", step_timeout_s=120)
    builder = DockerBuilder(DockerEngine(), ThreadRuntime(), settings, yard, folder=folder / "builds", cache=folder / "uv-cache")
    told, log = plan("greeting==2.0"), Lines()
    source = Source("killed", Path(archive), f"ada/fruit-{yard}", 9, "ab" * 32)
    print("building", flush=True)
    while True:
        lock = builder.lock(told, log)
        reference = builder.reference(lock, source)
        builder.package(source, builder.install(reference, lock, log), told, log)
        builder.remove_code("killed")
        builder.remove(reference)


if __name__ == "__main__":
    main()
