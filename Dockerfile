# docker build -t torchgeo-ctm .
# docker run --rm -v "$PWD:/data" torchgeo-ctm predict scene.tif --checkpoint model.ckpt --output map.tif
FROM python:3.13-slim
COPY pyproject.toml README.md LICENSE /source/
COPY torchgeo_ctm /source/torchgeo_ctm
# PyTorch for CPUs. For GPUs leave the index out, and run with --gpus all
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu "/source[hub,parquet]"
WORKDIR /data
ENTRYPOINT ["torchgeo-ctm"]
