# The lab server's image: API, worker and command line. Dependencies, torch above all, lie in a layer that
# changes with them alone; the code is a small layer on top.
#
#   BASE_IMAGE        any image with Python 3.11 or newer, pip and venv
#   TORCH_INDEX_URL   where torch comes from instead of PyPI, for one https://download.pytorch.org/whl/cpu
ARG BASE_IMAGE=python:3.12-slim

# The list alone: a change elsewhere in pyproject.toml reinstalls nothing.
FROM ${BASE_IMAGE} AS requirements
WORKDIR /
COPY pyproject.toml .
RUN python -c 'import tomllib as t; print(*t.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
        > /requirements.txt \
    && grep -E '^torch(vision)?[<>=~!]' /requirements.txt > /torch.txt

FROM ${BASE_IMAGE} AS dependencies
ARG TORCH_INDEX_URL=""
RUN python -m venv --without-pip /opt/venv
COPY --from=requirements /requirements.txt /torch.txt /
RUN --mount=type=cache,target=/root/.cache/pip \
    if [ -n "$TORCH_INDEX_URL" ]; then \
        python -m pip --python /opt/venv/bin/python install --index-url "$TORCH_INDEX_URL" --requirement /torch.txt; \
    fi \
    && python -m pip --python /opt/venv/bin/python install --requirement /requirements.txt

FROM ${BASE_IMAGE} AS package
COPY . /source
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="spikeproof" \
      org.opencontainers.image.description="Trains default, LIF and ParaLIF ResNets and tells how robust they are" \
      org.opencontainers.image.licenses="Apache-2.0"

# A fixed id: machines that share the data folder must agree on who owns it. New volumes take over the owners
# of the folders that they are mounted on.
RUN groupadd --gid 10001 spikeproof \
    && useradd --uid 10001 --gid 10001 --create-home --shell /usr/sbin/nologin spikeproof \
    && install --directory --owner=10001 --group=10001 --mode=0755 /data \
    && install --directory --owner=10001 --group=10001 --mode=0750 /secrets/database /secrets/broker

# On a GPU, Triton builds its kernels when they are first used.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

COPY --from=dependencies /opt/venv /opt/venv
COPY --from=package /wheels /opt/spikeproof/wheels
RUN python -m pip --python /opt/venv/bin/python install --no-cache-dir --no-index --no-deps /opt/spikeproof/wheels/*.whl
COPY docker /opt/spikeproof

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SPIKEPROOF_DATA_DIR=/data \
    SPIKEPROOF_HOST=0.0.0.0 \
    SPIKEPROOF_PORT=8000
USER 10001:10001
WORKDIR /home/spikeproof
EXPOSE 8000
ENTRYPOINT ["spikeproof"]
CMD ["--help"]
