# llmctl with vLLM, on NVIDIA GPUs. From the root of a clone:
#   docker build -f docker/cuda.Dockerfile -t llmctl:cuda .
#   docker run --rm --gpus all --ipc=host -v "$PWD/runs:/home/llmctl/runs" llmctl:cuda doctor
FROM nvidia/cuda:12.8.1-runtime-ubuntu24.04
RUN apt-get update && apt-get install -y --no-install-recommends gcc python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* && useradd --create-home llmctl && python3 -m venv /opt/llmctl
ENV PATH=/opt/llmctl/bin:$PATH
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY llmctl llmctl
COPY recipes recipes
RUN pip install --no-cache-dir '.[vllm,gym,server,quant,ray,msr,explorer]'
USER llmctl
WORKDIR /home/llmctl
ENTRYPOINT ["llmctl"]
CMD ["--help"]
