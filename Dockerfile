# hpcbn as a container, on Microsoft's Ubuntu 24.04 images of .NET. DOTNET is where those are: their registry and the folder in it, as in "REGISTRY/dotnet".
#   docker build --build-arg DOTNET=REGISTRY/dotnet --target noble -t hpcbn .
#   docker build --build-arg DOTNET=REGISTRY/dotnet --target chiseled -t hpcbn .
# docs/containers.md says how it is run with a read-only file system.
ARG DOTNET
FROM ${DOTNET}/sdk:10.0-noble AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake make g++ libdnnl-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
# What libhbn needs and the images below lack lies beside it, where its RPATH looks first.
RUN dotnet publish src/HpcBatchNorm.Cli -c Release -r linux-x64 --self-contained false -p:DebugType=none -o /app \
    && ldd /app/libhbn.so | awk '/dnnl|gomp|OpenCL/ { print $3 }' | xargs -I{} cp -L {} /app/ \
    && mkdir /cache

# With a shell and a package manager.
FROM ${DOTNET}/runtime:10.0-noble AS noble
COPY --from=build /app /app
COPY --from=build --chown=$APP_UID:$APP_UID /cache /cache
ENV XDG_CACHE_HOME=/cache DOTNET_EnableDiagnostics=0
USER $APP_UID
WORKDIR /workspace
ENTRYPOINT ["/app/hpcbn"]

# Without: nothing in it but .NET, hpcbn and the C and C++ libraries; its user is not root.
FROM ${DOTNET}/runtime:10.0-noble-chiseled AS chiseled
COPY --from=build /app /app
COPY --from=build --chown=$APP_UID:$APP_UID /cache /cache
ENV XDG_CACHE_HOME=/cache DOTNET_EnableDiagnostics=0
WORKDIR /workspace
ENTRYPOINT ["/app/hpcbn"]
