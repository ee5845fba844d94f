# One image for every service of Modelyard: `modelyard serve ROLE`. What a build needs of its machine (an index, a certificate bundle)
# stays in the first stage.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG PIP_INDEX_URL
WORKDIR /src
# The bundle is optional: a pattern that matches nothing is no error beside names that are there.
COPY deploy/stack/requirements.lock deploy/stack/ca-bundle[.]pem ./
RUN python -m venv /opt/modelyard \
    && if [ -f ca-bundle.pem ]; then export PIP_CERT=/src/ca-bundle.pem; fi \
    && /opt/modelyard/bin/pip install --quiet --no-cache-dir --require-hashes -r requirements.lock
COPY . .
RUN if [ -f deploy/stack/ca-bundle.pem ]; then export PIP_CERT=/src/deploy/stack/ca-bundle.pem; fi \
    && /opt/modelyard/bin/pip install --quiet --no-cache-dir --no-deps . \
    && /opt/modelyard/bin/pip uninstall --quiet --yes pip \
    && find /opt/modelyard -name '*.pyc' -delete \
    && python -m compileall -q --invalidation-mode unchecked-hash /opt/modelyard/lib

FROM ${BASE}
LABEL org.opencontainers.image.title="Modelyard" org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/modelyard modelyard \
    && install -d -m 0700 -o modelyard -g modelyard /var/lib/modelyard /run/modelyard/sockets /run/modelyard/secrets
COPY --from=build /opt/modelyard /opt/modelyard
COPY deploy/stack/healthy deploy/stack/first-start /usr/local/bin/
ENV PATH=/opt/modelyard/bin:/usr/local/bin:/usr/bin:/bin MODELYARD_DATA=/var/lib/modelyard PYTHONUNBUFFERED=1
USER modelyard
WORKDIR /var/lib/modelyard
ENTRYPOINT ["modelyard"]
