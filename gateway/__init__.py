"""The front door: authenticated calls to `/m/{owner}/{model}/...`, streamed to the instance that serves them."""
