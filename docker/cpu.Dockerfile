# llmctl with the embedded model, on a CPU. From the root of a clone:
#   docker build -f docker/cpu.Dockerfile -t llmctl:cpu .
#   docker run --rm -v "$PWD/runs:/home/llmctl/runs" llmctl:cpu rise run rise/smoke
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends gcc && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home llmctl
WORKDIR /src
COPY requirements requirements
# A plain install brings a CUDA build of torch: build with --build-arg TORCH_INDEX=URL of PyTorch's CPU wheels for a
# smaller image.
ARG TORCH_INDEX=
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url $TORCH_INDEX} -r requirements/torch.txt
COPY pyproject.toml README.md LICENSE ./
COPY llmctl llmctl
COPY recipes recipes
RUN pip install --no-cache-dir '.[gym,server,quant,msr,explorer]' \
    && pip install --no-cache-dir --no-deps -r requirements/embedded.txt
USER llmctl
WORKDIR /home/llmctl
RUN llmctl models pull smollm2-135m
ENTRYPOINT ["llmctl"]
CMD ["--help"]
