# alpaca_lora with CUDA; docs/containers.md says how to run it.
#
#   docker build --tag=alpaca-lora .      in the checkout
#
# torch's wheels bring CUDA's libraries; the base image adds what lets the host's driver in.
FROM nvidia/cuda:13.0.0-base-ubuntu24.04

# Triton, which compiles attention on a GPU, calls a C compiler while a run goes on, and needs Python's headers.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

# Only what the package is built from: .dockerignore keeps everything else out. It belongs to root, so that a run cannot
# change the program.
COPY pyproject.toml constraints.txt README.md LICENSE /opt/source/
COPY src /opt/source/src
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --constraint /opt/source/constraints.txt \
        '/opt/source[quant,data,web,judge]'

# Downloads and compiled kernels go to the home, which is a volume. USER is for programs that ask who they run as when
# --user names a number that has no name here.
RUN useradd --uid 10001 --home-dir /cache --create-home alpaca \
    && install --directory --owner=alpaca --group=alpaca /work
ENV PATH=/opt/venv/bin:$PATH HOME=/cache USER=alpaca MPLBACKEND=Agg PYTHONUNBUFFERED=1
USER alpaca
VOLUME ["/cache"]
WORKDIR /work

ENTRYPOINT ["alpaca-lora"]
CMD ["--help"]
