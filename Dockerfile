# docker build -t mmd-ddm . && docker run --rm -v "$PWD/out:/out" mmd-ddm
# draws, finetunes and judges the bundled model on the CPU; the run is in out/demo-run. Any other verb
# stands behind the name: docker run --rm mmd-ddm finetune --help. For a GPU, build with
# --build-arg TORCH_INDEX=https://pypi.org/simple and run with --gpus all.
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --index-url "${TORCH_INDEX}" "torch>=2.4" "torchvision>=0.19"

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir . && useradd --create-home --uid 1000 user && mkdir /out && chown user /out

USER 1000
WORKDIR /out
ENTRYPOINT ["mmd-ddm"]
CMD ["demo"]
