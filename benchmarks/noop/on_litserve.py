"""On LitServe: `python on_litserve.py PORT`."""

import sys

import litserve  # type: ignore[import-not-found] # in an environment of its own


class NoOp(litserve.LitAPI):  # type: ignore[misc] # as above
    """Gives back the input."""

    def setup(self, device: str) -> None:
        """There is nothing to load."""

    def decode_request(self, request: dict[str, str]) -> str:
        """The input."""
        return request["input"]

    def predict(self, x: str) -> str:
        """What was sent."""
        return x

    def encode_response(self, output: str) -> dict[str, str]:
        """The answer."""
        return {"output": output}


if __name__ == "__main__":
    server = litserve.LitServer(NoOp(), accelerator="cpu", workers_per_device=1)
    server.run(port=int(sys.argv[1]), host="127.0.0.1", num_api_servers=1, generate_client_file=False, log_level="error")
