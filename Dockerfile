# VideoPool on CPUs; for NVIDIA GPUs: docker build --build-arg TORCH_INDEX= -t videopool .
# docs/install.md has the commands. decord has no wheels for ARM: build with --platform linux/amd64 there.
FROM python:3.11-slim

# Where torch comes from. Its own index has builds without CUDA, which need a fifth of the space; empty is pip's default.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1

WORKDIR /opt/videopool

# Apart from the rest: it stays in the cache of builds while the program changes.
COPY constraints.txt ./
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' constraints.txt)"

COPY pyproject.toml README.md LICENSE ./
COPY src ./src
COPY conf ./conf
COPY experiments ./experiments
# hadolint ignore=DL3013
RUN pip install -c constraints.txt .

# Any user may write to home and /work, so that `docker run --user` leaves files of the caller's.
RUN useradd --create-home --uid 1000 videopool \
    && mkdir /work \
    && chmod 1777 /home/videopool /work
ENV HOME=/home/videopool
USER 1000
WORKDIR /work

ENTRYPOINT ["videopool"]
CMD ["--help"]
